//! A diagnosis that names the job for which other jobs wait.

use crate::insight::diagnosis::Diagnosis;
use crate::insight::line_holder::LineHolder;
use crate::insight::problem::Problem;

impl Diagnosis {
    /// Whether [`Group::line_holder`](crate::stream::Group::line_holder) would add something to
    /// this diagnosis.
    #[must_use]
    pub fn has_line(&self) -> bool {
        let has_line = |problem: &Problem| {
            matches!(problem, Problem::LimitReached { longest_line: Some(_), .. })
        };
        self.problems.iter().any(has_line)
    }

    /// Adds, to a limit that is reached, the job that has the place for which other jobs wait.
    #[must_use]
    pub fn with_line_holder(mut self, found: Option<LineHolder>) -> Self {
        for problem in &mut self.problems {
            if let Problem::LimitReached { holder, .. } = problem {
                holder.clone_from(&found);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{LineFacts, ServerTime};

    fn of_key(key: &str) -> LineHolder {
        LineHolder::of(LineFacts {
            now: ServerTime(0),
            key: key.to_owned(),
            jobs: 12,
            place: None,
            looked: 2_000,
            complete: false,
        })
    }

    #[test]
    fn the_job_of_the_longest_line_is_told_and_that_of_another_line_is_not() {
        let problem = Problem::LimitReached {
            limits: "1 at once for each key".to_owned(),
            parked: 12,
            longest_line: Some(("c-7".to_owned(), 12)),
            holder: None,
            oldest: Duration::from_secs(40),
        };
        let diagnosis = Diagnosis { problems: vec![problem] };
        assert!(diagnosis.has_line() && !Diagnosis::default().has_line());
        let said = |found| diagnosis.clone().with_line_holder(found).to_string();
        let expected = "12 of them for c-7, whose job is not among the 2000 places that were examined; the oldest";
        assert!(said(Some(of_key("c-7"))).contains(expected), "{}", said(Some(of_key("c-7"))));
        assert_eq!(said(Some(of_key("c-8"))), said(None));
    }
}
