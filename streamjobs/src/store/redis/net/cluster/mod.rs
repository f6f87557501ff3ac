//! The nodes of a Redis Cluster, and which of them has which slot.
//!
//! The map of slots is learned from `CLUSTER SLOTS`: at the first use, after a node has said that a slot moved or that
//! the cluster is down, and after a connection was lost. The answer `MOVED` changes one slot of the map at once. Each
//! node has connections of its own, over which a command is sent once. The client crate's cluster connection is not
//! used, because it repeats commands whose answers were lost.
//!
//! A user of the servers needs `CLUSTER|SLOTS`, and `ASKING` while slots are moved, in addition to what
//! the store lists. The doctor uses `CLUSTER|INFO` where it is allowed.

mod pursuit;
mod redirect;
mod slot_map;
mod topology;

pub(crate) use self::pursuit::Pursuit;
pub(crate) use self::redirect::Redirect;
pub(crate) use self::topology::{Cluster, Survey};
