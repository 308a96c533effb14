//! How many users a closed load has, over time.

use crate::plan::UserCurve;
use crate::units::Ns;

/// The users of a closed load: when the next one arrives, and whether one is too many.
///
/// A curve counts from the start of measuring; during a warm-up the users are those of its start, at least one. On a
/// straight line the number is rounded down.
#[derive(Debug)]
pub(super) struct Users {
    curve: UserCurve,
    ramp_up: Ns,
    /// Start of measuring, once it is known.
    origin: Option<Ns>,
    /// Users who have not left.
    active: u32,
    /// Up to where arrivals have been handed out.
    seen: Ns,
}

impl Users {
    /// The first `played` nanoseconds of a curve are over.
    pub(super) fn new(mut curve: UserCurve, ramp_up: Ns, played: Ns) -> Self {
        if let UserCurve::Pieces(pieces) = &mut curve {
            let mut left = played;
            pieces.retain_mut(|(length, from, to)| {
                let cut = left.min(*length);
                *from = users_at(*length, *from, *to, cut);
                *length -= cut;
                left -= cut;
                *length > 0
            });
        }
        Self { curve, ramp_up, origin: None, active: 0, seen: 0 }
    }

    pub(super) fn start_measuring(&mut self, at: Ns) {
        self.origin = Some(at);
    }

    /// When the curve ends; never for a constant number or before measuring.
    pub(super) fn end(&self) -> Option<Ns> {
        let UserCurve::Pieces(pieces) = &self.curve else { return None };
        let length = pieces.iter().fold(0, |sum: Ns, (length, ..)| sum.saturating_add(*length));
        Some(self.origin?.saturating_add(length))
    }

    /// When one more user arrives.
    pub(super) fn next_arrival(&self) -> Option<Ns> {
        match &self.curve {
            UserCurve::Constant(users) => {
                let place = u128::from(self.active) * u128::from(self.ramp_up);
                (self.active < *users).then(|| (place / u128::from(*users)) as Ns)
            }
            UserCurve::Pieces(pieces) => {
                let Some(origin) = self.origin else {
                    return (self.active < warm_users(pieces)).then_some(self.seen);
                };
                let mut start = origin;
                for &(length, from, to) in pieces {
                    let end = start.saturating_add(length);
                    let at = crossing(length, from, to, self.active + 1).map(|at| start.saturating_add(at));
                    // A number that is already passed counts from when it was last looked at, while it still holds.
                    if let Some(at) = at.map(|at| at.max(self.seen))
                        && at < end
                        && users_at(length, from, to, at - start) > self.active
                    {
                        return Some(at);
                    }
                    start = end;
                }
                None
            }
        }
    }

    /// One more user arrives at `at`.
    pub(super) fn arrive(&mut self, at: Ns) {
        self.active += 1;
        self.seen = self.seen.max(at);
    }

    /// A user leaves at `at`. Where the curve has been until then brings nobody back.
    pub(super) fn leave(&mut self, at: Ns) {
        // A constant number counts arrivals: who has left is not replaced.
        if matches!(self.curve, UserCurve::Pieces(_)) {
            self.active -= 1;
            self.seen = self.seen.max(at);
        }
    }

    /// Whether there are more users than the curve wants.
    pub(super) fn is_one_too_many(&self, now: Ns) -> bool {
        let UserCurve::Pieces(pieces) = &self.curve else { return false };
        let Some(origin) = self.origin else { return self.active > warm_users(pieces) };
        let mut start = origin;
        for &(length, from, to) in pieces {
            let end = start.saturating_add(length);
            if now < end {
                return self.active > users_at(length, from, to, now.saturating_sub(start));
            }
            start = end;
        }
        true
    }
}

fn warm_users(pieces: &[(Ns, u32, u32)]) -> u32 {
    pieces.first().map_or(1, |(_, from, _)| (*from).max(1))
}

/// The number of users `at` nanoseconds into a piece.
fn users_at(length: Ns, from: u32, to: u32, at: Ns) -> u32 {
    let (length, at) = (i128::from(length.max(1)), i128::from(at));
    let line = i128::from(from) * length + (i128::from(to) - i128::from(from)) * at;
    line.div_euclid(length) as u32
}

/// When a piece first has `wanted` users, counted from its start.
fn crossing(length: Ns, from: u32, to: u32, wanted: u32) -> Option<Ns> {
    if from >= wanted {
        return Some(0);
    }
    if to < wanted {
        return None;
    }
    let (rise, slope) = (u128::from(wanted - from), u128::from(to - from));
    Some((rise * u128::from(length)).div_ceil(slope) as Ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(users: &mut Users) -> Vec<Ns> {
        std::iter::from_fn(|| users.next_arrival().inspect(|at| users.arrive(*at))).collect()
    }

    #[test]
    fn a_ramp_spaces_the_first_users_evenly() {
        assert_eq!(arrivals(&mut Users::new(UserCurve::Constant(4), 100, 0)), [0, 25, 50, 75]);
        assert_eq!(arrivals(&mut Users::new(UserCurve::Constant(2), 0, 0)), [0, 0]);
    }

    #[test]
    fn users_arrive_where_the_line_reaches_the_next_whole_number() {
        let mut users = Users::new(UserCurve::Pieces(vec![(100, 0, 4), (100, 4, 4), (50, 6, 6)]), 0, 0);
        users.start_measuring(10);
        assert_eq!(arrivals(&mut users), [35, 60, 85, 110, 210, 210]);
        assert_eq!(users.end(), Some(260));
        assert!(!users.is_one_too_many(259));
        assert!(users.is_one_too_many(260));
    }

    #[test]
    fn users_are_too_many_on_the_way_down() {
        let mut users = Users::new(UserCurve::Pieces(vec![(100, 4, 0)]), 0, 0);
        users.start_measuring(0);
        assert_eq!(arrivals(&mut users), [0, 0, 0, 0]);
        assert!(!users.is_one_too_many(0));
        assert!(users.is_one_too_many(1));
        users.leave(1);
        assert!(!users.is_one_too_many(25));
        assert!(users.is_one_too_many(26));
        assert_eq!(users.next_arrival(), None, "four users were wanted only before");
    }

    #[test]
    fn a_warm_up_has_the_users_of_the_start_and_at_least_one() {
        let mut users = Users::new(UserCurve::Pieces(vec![(100, 0, 2)]), 0, 0);
        assert_eq!(arrivals(&mut users), [0]);
        users.start_measuring(40);
        assert_eq!(users.next_arrival(), None, "the second user comes at the very end");
        let mut three = Users::new(UserCurve::Pieces(vec![(100, 3, 3)]), 0, 0);
        assert_eq!(arrivals(&mut three), [0, 0, 0]);
    }

    #[test]
    fn a_resumed_curve_goes_on_where_it_was() {
        let curve = UserCurve::Pieces(vec![(100, 3, 3), (100, 0, 4)]);
        let mut users = Users::new(curve, 0, 150);
        users.start_measuring(0);
        assert_eq!(arrivals(&mut users), [0, 0, 25]);
        assert_eq!(users.end(), Some(50));
    }
}
