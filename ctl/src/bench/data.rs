//! Keys and values, as every run makes them again: from a number and the seed.

use anyhow::{Result, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// What no user's key is likely to begin with.
const MARK: u8 = b'~';
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Mark and row.
const PREFIX_BYTES: usize = 2;
/// Random bytes of which every value is a piece: nothing for a server to compress, and nothing copied here.
const POOL_BYTES: usize = 4 << 20;

/// The keys of one row: a mark, a letter, and a number of fixed width, so that their order is the numbers'.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    letter: u8,
    size: usize,
}

impl Keys {
    /// `count` keys of `size` bytes.
    pub(crate) fn new(letter: u8, size: usize, count: u64) -> Result<Self> {
        let digits = u32::try_from(size.saturating_sub(PREFIX_BYTES))?;
        let fit = 36_u64.checked_pow(digits).unwrap_or(u64::MAX);
        ensure!(
            size > PREFIX_BYTES && count < fit,
            "--key-size {size} has no room for {count} different keys ({PREFIX_BYTES} bytes are taken)"
        );
        Ok(Self { letter, size })
    }

    pub(crate) fn key(&self, mut number: u64) -> Bytes {
        let mut key = vec![DIGITS[0]; self.size];
        (key[0], key[1]) = (MARK, self.letter);
        for place in key[PREFIX_BYTES..].iter_mut().rev() {
            *place = DIGITS[usize::try_from(number % 36).expect("below 36")];
            number /= 36;
        }
        key.into()
    }

    /// All of them: first key and range end.
    pub(crate) fn all(&self) -> (Bytes, Bytes) {
        (vec![MARK, self.letter].into(), vec![MARK, self.letter + 1].into())
    }
}

/// The values: which one belongs to a number, and how long it is.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    pool: Bytes,
    size: usize,
}

impl Values {
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let mut pool = vec![0; POOL_BYTES + size];
        StdRng::seed_from_u64(seed).fill_bytes(&mut pool);
        Self { pool: pool.into(), size }
    }

    /// The value of this number.
    pub(crate) fn value(&self, number: u64) -> Bytes {
        self.sized(number, self.size)
    }

    /// The first `size` bytes of it.
    pub(crate) fn sized(&self, number: u64, size: usize) -> Bytes {
        let spread = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let start = usize::try_from(spread).expect("32 bits fit") % POOL_BYTES;
        self.pool.slice(start..start + size.min(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_their_numbers() {
        let keys = Keys::new(b'p', 8, 1_000_000).unwrap();
        let (first, end) = keys.all();
        let mut last = first;
        for number in [0, 1, 9, 10, 35, 36, 37, 1_295, 1_296, 999_999] {
            let key = keys.key(number);
            assert_eq!(key.len(), 8);
            assert!(last < key && key < end, "{number}");
            last = key;
        }
    }

    #[test]
    fn too_many_keys_for_their_size_are_refused() {
        assert!(Keys::new(b'p', 4, 1_295).is_ok());
        let error = Keys::new(b'p', 4, 1_296).unwrap_err().to_string();
        assert!(error.contains("--key-size 4") && error.contains("1296"), "{error}");
        assert!(Keys::new(b'p', 2, 0).is_err());
    }

    #[test]
    fn values_come_from_the_seed_and_the_number_alone() {
        let (one, same, other) = (Values::new(1, 256), Values::new(1, 256), Values::new(2, 256));
        assert_eq!(one.value(77), same.value(77));
        assert_ne!(one.value(77), other.value(77));
        assert_ne!(one.value(77), one.value(78));
        assert_eq!(one.sized(77, 10), one.value(77)[..10]);
    }
}
