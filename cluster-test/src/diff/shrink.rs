//! Fewer steps that still show the difference: delta debugging (ddmin), within a bound on time.

use std::time::Instant;

use anyhow::Result;

/// Leaves out chunks of `steps`, large ones first, as long as `still_differs` holds of what is left and there is time.
pub(super) fn shrink<T: Clone>(
    steps: Vec<T>,
    until: Instant,
    mut still_differs: impl FnMut(&[T]) -> Result<bool>,
) -> Result<Vec<T>> {
    let mut left = steps;
    let mut chunk = left.len().div_ceil(2);
    while chunk > 0 && left.len() > 1 {
        let mut at = 0;
        let mut shorter = false;
        while at < left.len() && left.len() > 1 {
            if Instant::now() > until {
                return Ok(left);
            }
            let end = (at + chunk).min(left.len());
            let without: Vec<T> = left[..at].iter().chain(&left[end..]).cloned().collect();
            if !without.is_empty() && still_differs(&without)? {
                left = without;
                shorter = true;
            } else {
                at = end;
            }
        }
        if chunk == 1 && !shorter {
            break;
        }
        chunk = if chunk == 1 { 1 } else { chunk.div_ceil(2).min(chunk - 1) };
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    #[test]
    fn what_is_needed_stays_and_nothing_else() -> Result<()> {
        let needed = [3, 41, 42, 777];
        let mut tries = 0;
        let left = shrink((0..1_000).collect(), soon(), |steps| {
            tries += 1;
            Ok(needed.iter().all(|step| steps.contains(step)))
        })?;
        assert_eq!(left, needed);
        assert!(tries < 200, "{tries} tries");
        Ok(())
    }

    #[test]
    fn one_step_alone_is_left_as_it_is() -> Result<()> {
        assert_eq!(shrink(vec![5], soon(), |_| Ok(true))?, [5]);
        assert_eq!(shrink(vec![1, 2], soon(), |_| Ok(false))?, [1, 2]);
        Ok(())
    }

    #[test]
    fn without_time_everything_stays() -> Result<()> {
        let past = Instant::now().checked_sub(Duration::from_secs(1)).expect("the machine runs for a second");
        let all: Vec<_> = (0..10).collect();
        assert_eq!(shrink(all.clone(), past, |_| Ok(true))?, all);
        Ok(())
    }

    #[test]
    fn a_replay_that_fails_ends_it() {
        assert!(shrink(vec![1, 2], soon(), |_| anyhow::bail!("no member")).is_err());
    }
}
