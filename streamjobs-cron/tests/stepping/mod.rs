//! The policy for the nights on which clocks change, found by looking at the clock of each minute. It uses
//! nothing of the crate.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// What the clock of a zone shows at each minute of a time.
#[derive(Debug)]
pub(crate) struct Minutes {
    start: i64,
    /// The seconds that a clock in UTC would have to show.
    walls: Vec<i64>,
    /// The latest that the clock has shown so far.
    reached: Vec<i64>,
}

impl Minutes {
    /// Looks at `count` minutes from a second on, which is a whole minute.
    pub(crate) fn of(zone: &TimeZone, start: i64, count: i64) -> Self {
        assert_eq!(start % 60, 0);
        let instants = (0..count).map(|minute| start + minute * 60);
        let walls = instants.map(|instant| instant + offset(zone, instant)).collect::<Vec<_>>();
        let latest = walls.iter().scan(i64::MIN, |latest, wall| {
            *latest = (*latest).max(*wall);
            Some(*latest)
        });
        Self { start, reached: latest.collect(), walls }
    }

    /// The instants at which a line occurs that follows the clock.
    pub(crate) fn repeating(&self, matches: impl Fn(DateTime) -> bool) -> Vec<i64> {
        let shown = self.walls.iter().enumerate().filter(|(_, wall)| matches(civil(**wall)));
        shown.map(|(minute, _)| self.instant(minute)).collect()
    }

    /// The instants at which a line occurs each of whose times occurs once: when the clock reaches the time,
    /// or passes it. Those that are passed at once keep their distances.
    pub(crate) fn fixed(&self, matches: impl Fn(DateTime) -> bool) -> Vec<i64> {
        let mut found = Vec::new();
        // The minute that ended the last gap, and the first time in that gap.
        let mut gap = None::<(usize, i64)>;
        let mut wall = self.walls[0];
        while wall <= *self.reached.last().unwrap() {
            if matches(civil(wall)) {
                let minute = self.reached.partition_point(|reached| *reached < wall);
                let first = match gap {
                    _ if self.walls[minute] == wall => wall,
                    Some((same, first)) if same == minute => first,
                    _ => {
                        gap = Some((minute, wall));
                        wall
                    }
                };
                found.push(self.instant(minute) + wall - first);
            }
            wall += 60;
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn instant(&self, minute: usize) -> i64 {
        self.start + i64::try_from(minute).unwrap() * 60
    }
}

/// What the clock of a zone shows, minus UTC.
pub(crate) fn offset(zone: &TimeZone, instant: i64) -> i64 {
    i64::from(zone.to_offset(Timestamp::from_second(instant).unwrap()).seconds())
}

fn civil(wall: i64) -> DateTime {
    Offset::UTC.to_datetime(Timestamp::from_second(wall).unwrap())
}
