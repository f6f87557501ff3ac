//! What one thread logs, for tests that run at the same time as others.

use std::sync::OnceLock;

use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Subscriber};

/// Sets a subscriber for this thread until the guard is dropped.
///
/// As long as a process has a single subscriber, `tracing` asks only the thread that first reaches
/// a log line whether the line is of interest, and remembers the answer for all threads. If a test
/// without a subscriber came first, this thread would never get the line. A second subscriber,
/// which lives as long as the process, makes `tracing` ask all of them.
pub fn of_this_thread(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
    tracing::subscriber::set_default(subscriber)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Subscriber;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::of_this_thread;

    #[derive(Clone, Default)]
    struct Count(Arc<Mutex<usize>>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _event: &tracing::Event<'_>, _context: Context<'_, S>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    fn line() {
        tracing::warn!("reached by another thread first");
    }

    #[test]
    fn a_line_that_another_thread_reaches_first_is_seen() {
        let count = Count::default();
        let _guard = of_this_thread(tracing_subscriber::registry().with(count.clone()));
        std::thread::spawn(line).join().unwrap();
        line();
        assert_eq!(*count.0.lock().unwrap(), 1);
    }
}
