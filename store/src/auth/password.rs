//! The finished hash as it stands in the log: base64 with padding, etcd's form, for the hash is bytes and the field text.
//!
//! Clear text is refused here, whatever else the request says: it must not reach a log at all, and a door that lets it
//! through has to be noticed at the first request (CVE-2021-28235).

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::Rejection;

/// Empty when no hash was given: no password will be right then.
pub(super) fn hash_from_log(clear: &str, hashed: &str) -> Result<Bytes, Rejection> {
    if !clear.is_empty() {
        return Err(Rejection::InvalidAuthManagement);
    }
    decode_base64(hashed.as_bytes()).ok_or(Rejection::InvalidAuthManagement)
}

fn decode_base64(text: &[u8]) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(text.len() / 4 * 3);
    let mut groups = text.chunks(4).peekable();
    while let Some(group) = groups.next() {
        let digits = match group {
            [a, b, b'=', b'='] if groups.peek().is_none() => &[*a, *b][..],
            [a, b, c, b'='] if groups.peek().is_none() => &[*a, *b, *c][..],
            [_, _, _, _] => group,
            _ => return None,
        };
        let mut bits = 0_u32;
        for digit in digits {
            bits = bits << 6 | u32::from(digit_value(*digit)?);
        }
        bits <<= 6 * (4 - digits.len());
        out.put_slice(&bits.to_be_bytes()[1..digits.len()]);
    }
    Some(out.freeze())
}

fn digit_value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_padding() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_base64() {
        for text in ["Z", "Zg", "Zm8", "Zg=", "Zg==Zg==", "Zm8=Zm9v", "====", "=AAA", "Z===", "Zm9v\n", "Zm-_"] {
            assert_eq!(decode_base64(text.as_bytes()), None, "{text}");
        }
    }
}
