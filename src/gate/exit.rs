//! Exit codes, and which one wins.

/// Everything that decides passed.
pub const PASS: u8 = 0;
/// The command line, or a scenario that does not validate.
pub const USAGE: u8 = 2;
/// It could not be run: backend unreachable, model missing, a workload without one success, disk full.
pub const RUN: u8 = 3;
/// A rule is inconclusive, and `inconclusive: fail` or `--strict` asks for certainty.
pub const INCONCLUSIVE: u8 = 4;
/// The run is invalid, or two runs are not comparable.
pub const INVALID: u8 = 5;
/// A gate failed. The number is k6's.
pub const FAILED: u8 = 99;
/// A bug: the program panicked.
pub const BUG: u8 = 101;
/// Interrupted by Ctrl-C (SIGINT, 128 + 2); partial results are written.
pub const INTERRUPTED: u8 = 130;
/// Interrupted by SIGTERM (128 + 15); partial results are written.
pub const TERMINATED: u8 = 143;

/// Every code, the strongest first.
pub const PRECEDENCE: [u8; 9] =
    [BUG, INTERRUPTED, TERMINATED, USAGE, RUN, INVALID, FAILED, INCONCLUSIVE, PASS];

/// The code of several files and workloads together. A code that is not in the list counts as a bug; none is a pass.
pub fn strongest(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: u8| PRECEDENCE.iter().position(|c| *c == code).unwrap_or(0);
    codes.into_iter().map(rank).min().map_or(PASS, |at| PRECEDENCE[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_wins_in_any_order() {
        assert_eq!(strongest([]), PASS);
        assert_eq!(strongest([77]), BUG);
        for (at, strong) in PRECEDENCE.into_iter().enumerate() {
            for weak in PRECEDENCE.into_iter().skip(at) {
                assert_eq!((strongest([strong, weak]), strongest([weak, strong])), (strong, strong));
            }
        }
    }
}
