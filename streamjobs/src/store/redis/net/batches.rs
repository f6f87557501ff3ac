//! Calls of one script, for many queues of one server, that meet in one request.
//!
//! What a process does for each of its queues now and then costs one request for all of them, if the calls
//! come at the same time. The keys are then not declared, since those of several slots of a cluster cannot
//! be. So every refusal counts as no answer: the caller makes its call by itself, with declared keys.

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

/// The batches of one server that can still take calls, one of each script at most.
#[derive(Default)]
pub(crate) struct Batches {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<&'static str, Batch>,
    /// Until when the server is not asked again after it refused a batch as a whole.
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
    /// Taken when they are sent.
    calls: Arc<Mutex<Option<Vec<Call>>>>,
    /// Kept weakly: it ends when no caller waits for it any more.
    sending: WeakShared<Sending>,
}

type Sending = BoxFuture<'static, Arc<Answers>>;

/// An answer for each call in turn, taken by its caller.
type Answers = Result<Mutex<Vec<Option<Value>>>, StoreError>;

impl Batches {
    /// The answer to a call that met others in one request. `None` if it was alone, if the server refused
    /// it, or if it could not be sent: then it has to be made by itself. It has to be one that may be
    /// repeated, because what a refused script did before stays.
    ///
    /// Cancel safe as a single call: if the future is dropped, the call may or may not be made.
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

    /// Adds a call to the open batch, or to a new one: its place there.
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
    // One that is alone is made as it is otherwise.
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

/// How many keys and arguments each call has, and then those of all calls.
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
/// The server does nothing else while it runs them: 2 ms if each takes as long as a promotion.
const CALLS_MAX: usize = 50;
const EACH_REFUSED: &str = "each call of the batch was refused";
/// Some servers allow no keys that are not declared; others refuse everything for a moment.
const REFUSED_FOR: Duration = Duration::from_secs(60);
