//! Keeps marks in memory.

use std::time::Duration;

use super::MemoryStore;
use super::world::{World, milliseconds};
use crate::model::entry::EntryId;
use crate::store::marks::{MarkBegin, MarkStore, Marked};
use crate::store::{Queue, Reply};

/// A mark, and when it is forgotten.
#[derive(Debug)]
pub(super) struct Mark {
    state: State,
    forgotten: u64,
}

#[derive(Debug)]
enum State {
    Running { owner: String, origin: EntryId, until: u64 },
    Done,
}

impl MarkStore for MemoryStore {
    fn begin_mark<'a>(
        &'a self,
        queue: &'a Queue,
        key: &'a str,
        begin: MarkBegin<'a>,
    ) -> Reply<'a, Marked> {
        self.reply("begin_mark", move |world| Ok(begin_mark(world, queue, key, begin)))
    }

    fn finish_mark<'a>(&'a self, queue: &'a Queue, key: &'a str, keep: Duration) -> Reply<'a, ()> {
        self.reply("finish_mark", move |world| {
            let forgotten = world.now().saturating_add(milliseconds(keep).max(1));
            let key = queue.stream.once_key(&queue.group, key);
            world.marks.insert(key, Mark { state: State::Done, forgotten });
            Ok(())
        })
    }

    fn undo_mark<'a>(&'a self, queue: &'a Queue, key: &'a str, owner: &'a str) -> Reply<'a, bool> {
        self.reply("undo_mark", move |world| {
            let now = world.now();
            let key = queue.stream.once_key(&queue.group, key);
            let own = world.marks.get(&key).is_some_and(|mark| match &mark.state {
                State::Running { owner: present, .. } => now < mark.forgotten && present == owner,
                State::Done => false,
            });
            if own {
                world.marks.remove(&key);
            }
            Ok(own)
        })
    }
}

fn begin_mark(world: &mut World, queue: &Queue, key: &str, begin: MarkBegin<'_>) -> Marked {
    let now = world.now();
    let key = queue.stream.once_key(&queue.group, key);
    let found = world.marks.get(&key).filter(|mark| now < mark.forgotten);
    match found.map(|mark| &mark.state) {
        Some(State::Done) => return Marked::Done,
        Some(State::Running { origin, until, .. }) if *origin != begin.origin && now < *until => {
            return Marked::Running { rest: Duration::from_millis(until - now) };
        }
        _ => {}
    }
    let takeover = found.is_some();
    let until = now.saturating_add(milliseconds(begin.expiry).max(1));
    let state = State::Running { owner: begin.owner.to_owned(), origin: begin.origin, until };
    let forgotten = until.max(now.saturating_add(milliseconds(begin.keep)));
    world.marks.insert(key, Mark { state, forgotten });
    Marked::Begun { takeover }
}
