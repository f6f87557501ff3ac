//! Dead letters: listing, redriving, archiving and purging them.

mod archive;
mod finality;
mod letters;
mod list;

pub use self::archive::{ArchivedJob, RedriveOutcome, TOKEN_KEPT, Taken};
pub use self::letters::{DeadLetters, Page};
pub use self::list::SummaryPage;
pub use crate::model::attempts::{AttemptEnd, AttemptHistory, PastAttempt};
pub use crate::model::policy::Reason;
pub use crate::model::preview::DeadLetterSummary;
pub use crate::model::record::DeadLetter;
pub use crate::store::dead_letters::Taker;
