//! Batches: calls of one script, for many queues of one server, sent in one request.
//!
//! A call that a process makes for each of its queues now and then costs one request for all of them, if the calls come
//! at the same time. The keys are then not declared, because keys in several slots of a cluster cannot be declared
//! together. So every refusal counts as no answer: the caller makes its call by itself, with declared keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use redis::{Cmd, ToRedisArgs, Value};
use tokio::time::{Instant, sleep};

use super::links::Link;
use crate::store::StoreError;
use crate::store::redis::reply;
use crate::store::redis::script::Script;

/// The batches of one server that can still take calls, at most one for each script.
#[derive(Default)]
pub(crate) struct Batches {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<&'static str, Batch>,
    /// Until when the server gets no batch after it refused one as a whole.
    refused_until: Option<Instant>,
}

/// One call: its keys, then its arguments.
pub(crate) struct Call {
    keys: usize,
    words: Vec<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(keys: &[&str], arguments: impl ToRedisArgs) -> Self {
        let mut words = keys.iter().map(|key| key.as_bytes().to_vec()).collect::<Vec<_>>();
        words.extend(arguments.to_redis_args());
        Self { keys: keys.len(), words }
    }
}

/// Calls that are sent together.
struct Batch {
    /// Taken out when they are sent.
    calls: Arc<Mutex<Option<Vec<Call>>>>,
    /// Held weakly: sending ends when no caller waits for it any more.
    sending: WeakShared<Sending>,
}

type Sending = BoxFuture<'static, Arc<Answers>>;

/// An answer for each call, in order; each caller takes its own.
type Answers = Result<Mutex<Vec<Option<Value>>>, StoreError>;

impl Batches {
    /// The answer to a call that was sent with others in one request. `None` if the call was alone, if the server
    /// refused it, or if it could not be sent. In these cases the caller has to make the call by itself. The script
    /// must be safe to repeat, because the writes of a refused script stay.
    ///
    /// As cancel safe as a single call: if the future is dropped, the call may or may not be made.
    pub(crate) async fn answer(
        &self,
        link: &Link,
        script: &'static Script,
        call: Call,
    ) -> Result<Option<Value>, StoreError> {
        let Some((place, sending)) = self.join(link, script, call) else { return Ok(None) };
        let answers = sending.await;
        match answers.as_ref() {
            Ok(answers) => {
                let taken = lock(answers).get_mut(place).and_then(Option::take);
                Ok(taken.filter(|answer| !matches!(answer, Value::ServerError(_))))
            }
            Err(error) if error.is_unconfirmed() => Err(error.copy()),
            Err(error) => {
                if matches!(error, StoreError::Refused { .. }) {
                    self.lock().refused_until = Some(Instant::now() + REFUSED_FOR);
                }
                Ok(None)
            }
        }
    }

    /// Adds a call to the open batch, or to a new one. Returns its index there.
    fn join(
        &self,
        link: &Link,
        script: &'static Script,
        call: Call,
    ) -> Option<(usize, Shared<Sending>)> {
        let mut state = self.lock();
        if state.refused_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        if let Some(batch) = state.open.get(script.name)
            && let Some(sending) = batch.sending.upgrade()
            && let Some(calls) = lock(&batch.calls).as_mut()
            && calls.len() < CALLS_MAX
        {
            calls.push(call);
            return Some((calls.len() - 1, sending));
        }
        let calls = Arc::new(Mutex::new(Some(vec![call])));
        let sending = send(link.clone(), script, Arc::clone(&calls)).boxed().shared();
        let weak = sending.downgrade()?;
        state.open.insert(script.name, Batch { calls, sending: weak });
        Some((0, sending))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Waits for more calls, and sends all of them.
async fn send(
    link: Link,
    script: &'static Script,
    calls: Arc<Mutex<Option<Vec<Call>>>>,
) -> Arc<Answers> {
    sleep(GATHER).await;
    let calls = lock(&calls).take().unwrap_or_default();
    // A call that is alone is made the usual way.
    if calls.len() < 2 {
        return Arc::new(Ok(Mutex::default()));
    }
    let answered = async {
        let mut command = redis::cmd("EVALSHA");
        command.arg(link.digest(script).await?).arg(0);
        add_calls(&mut command, &calls);
        let answers = reply::items(link.run_script(&command, 0, false).await?, script.name)?;
        let is_refused = |answer: &Value| matches!(answer, Value::ServerError(_));
        if answers.iter().all(is_refused) {
            return Err(StoreError::Refused {
                code: "ERR".to_owned(),
                text: EACH_REFUSED.to_owned(),
            });
        }
        Ok(Mutex::new(answers.into_iter().map(Some).collect()))
    };
    Arc::new(answered.await)
}

/// Adds how many keys and arguments each call has, and then the keys and arguments of all calls.
fn add_calls(command: &mut Cmd, calls: &[Call]) {
    let (keys, words) = calls.first().map_or((0, 0), |call| (call.keys, call.words.len()));
    command.arg(keys).arg(words - keys);
    for word in calls.iter().flat_map(|call| &call.words) {
        command.arg(word);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").field("open", &self.lock().open.len()).finish_non_exhaustive()
    }
}

/// How long a call waits for others. None of these calls is urgent.
const GATHER: Duration = Duration::from_millis(5);
/// The most calls of one batch. While the server runs a batch, it does nothing else: for 2 ms if each call takes as
/// long as a promotion.
const CALLS_MAX: usize = 50;
const EACH_REFUSED: &str = "each call of the batch was refused";
/// How long a server gets no batch after it refused one. Some servers never allow undeclared keys; others refuse
/// everything for a moment.
const REFUSED_FOR: Duration = Duration::from_secs(60);
