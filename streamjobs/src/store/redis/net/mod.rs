//! Connections to the server: where it is, what it can do, and what its bytes and its refusals
//! mean.

mod address;
mod asking;
mod batches;
mod capabilities;
mod cluster;
mod connect_pause;
mod deadlines;
mod dial;
mod endpoint;
mod error;
mod incoming;
mod late_answers;
mod links;
mod live;
mod login;
mod multiplexed;
mod needs;
mod node;
mod nodes;
mod places;
mod reading;
pub(super) mod rights;
mod route;
pub(super) mod scan;
mod scripts;
mod sentinel;
mod server;
mod shared_reading;
mod shared_request;
mod shared_wire;
#[cfg(feature = "tls")]
mod tls;
mod wakers;
mod wire;
mod wire_state;

pub(super) use self::address::NodeAddress;
pub(super) use self::asking::asking;
pub(super) use self::batches::Call;
pub(super) use self::capabilities::{Capabilities, Info, Mode};
pub(super) use self::cluster::{Cluster, Pursuit, Redirect, Survey};
pub(super) use self::deadlines::{CONNECT_DEADLINE, RESPONSE_DEADLINE};
pub(super) use self::endpoint::Endpoint;
pub(super) use self::error::{accepted, answer_lost, not_connected, unreachable};
pub(super) use self::links::{Link, Pinned};
pub(super) use self::multiplexed::{AppendAnswers, Request};
pub(crate) use self::needs::needed_commands;
pub(super) use self::node::Node;
pub(super) use self::nodes::Nodes;
pub(super) use self::places::Place;
pub(super) use self::reading::{Answer, Reading, open_reading};
pub(super) use self::route::Route;
pub(super) use self::shared_reading::{Answered, Exchange, KeyWatch, Losses, Member};
pub(super) use self::wakers::{Waker, WakerSeat, Wakers};
pub(super) use self::wire::Patience;
