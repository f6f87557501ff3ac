//! The crash grid: every fail point of a job's life, reached by a process that then panics, aborts, is
//! killed, stands still for two leases, or loses its links. Another process takes over, and the
//! checker says whether all is as promised. Points between steps that keep holds and lines are reached in groups with
//! order per key and with fair shares as well, of which nothing may be left in the end; and those around the end of
//! a job with members of a batch, which has to complete once.

mod cell;
mod kind;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

use streamjobs::__proof::FailPoint;
use streamjobs_tests::postgres::PgServer;
use streamjobs_tests::proof;

use self::cell::{Action, Cell};
use self::kind::Kind;

/// Cells that run side by side. Most of their time they wait for a lease to end.
const SIDE_BY_SIDE: usize = 8;

#[test]
fn a_process_may_end_at_any_fail_point_and_nothing_is_lost_or_done_twice() {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = executor.block_on(proof::database(PgServer::shared()));
    let all = Kind::ALL.into_iter().flat_map(|kind| {
        let points = FailPoint::ALL.into_iter().filter(move |point| kind.changes(*point));
        points.flat_map(move |point| Action::ALL.map(|action| Cell { point, action, kind }))
    });
    // One cell alone, such as `GRID_CELL=ack.after_send-Cut` or `ack.after_send-Cut-Ordered`, to look for
    // its fault.
    let chosen = std::env::var("GRID_CELL").ok();
    let wanted = |cell: &Cell| chosen.as_ref().is_none_or(|name| *name == cell.name());
    let cells = Mutex::new(all.filter(wanted).collect::<VecDeque<_>>());
    let count = cells.lock().unwrap().len();
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(cell) = next(&cells) {
                    // A cell that panics is a cell that failed, and others go on.
                    let run = scope
                        .spawn({
                            let database = &database;
                            move || cell.run(database)
                        })
                        .join();
                    let breaches = run.unwrap_or_else(|panic| vec![text(panic.as_ref())]);
                    if !breaches.is_empty() {
                        let breaches = breaches.join("\n    ");
                        failed.lock().unwrap().push(format!("{cell:?}:\n    {breaches}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("crash grid: {} of {count} cells passed", count - failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(count == 175 || (count == 1 && chosen.is_some()), "{count} cells of {chosen:?}");
}

fn next(cells: &Mutex<VecDeque<Cell>>) -> Option<Cell> {
    cells.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
