//! The numbers of dead letters and redrives in their tables, as distinct types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of an archived dead letter (`dead_letters.id`). Later dead letters have higher
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LetterId(i64);

/// The number of a redrive (`redrives.id`). Later redrives have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedriveId(i64);

macro_rules! number {
    ($name:ident) => {
        impl $name {
            /// From the number in the table.
            #[must_use]
            pub const fn new(number: i64) -> Self {
                Self(number)
            }

            /// The number in the table.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number!(LetterId);
number!(RedriveId);
