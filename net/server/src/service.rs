//! What a server asks of the program behind it.

use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use heizer_runtime::fs::FileRegion;
use heizer_wire::RequestHeader;

use crate::budget::Reservation;

/// The program behind a server: one per core, called once for every request frame.
pub trait Service: 'static {
    /// Handles one request.
    ///
    /// Futures of one connection are first polled in the order of its requests; they may complete in any order,
    /// their replies leave in request order (contract P4). A future is dropped unfinished only when its
    /// connection has been gone for the finishing grace, or when a drain runs out of time.
    fn call(self: &Rc<Self>, request: Request) -> impl Future<Output = Reply> + 'static;
}

/// One request frame.
#[derive(Debug)]
pub struct Request {
    /// The request header. Its API key and version are as sent: either may be one we don't know.
    pub header: RequestHeader,
    /// What follows the header, a slice of the frame.
    pub body: Bytes,
    /// The connection that it came on.
    pub connection: Rc<ConnectionInfo>,
    /// The memory the frame holds from the core's budget; given back when this is dropped.
    pub lease: Lease,
}

/// A request's hold on its core's memory budget. Dropping it (with its request, or earlier once the body has been
/// consumed) gives the bytes back.
#[derive(Debug, Default)]
pub struct Lease {
    pub(crate) _reservation: Option<Reservation>,
}

/// What a request is answered with.
#[derive(Debug)]
pub enum Reply {
    /// A response.
    Send {
        /// The whole frame, size prefix included, as parts that are sent vectored without a copy.
        frame: Vec<Bytes>,
        /// What of the frame lies in files, in order: each comes before the part of this index, or at the end where
        /// that is one past the last.
        files: Vec<(usize, FileRegion)>,
        /// After the response has left, nothing more is read from the connection for this long (KIP-219, contract
        /// P5). Zero for none.
        mute: Duration,
        /// Dropped once the response has left, or never will: such as a share of a budget.
        held: Option<Box<dyn Any>>,
    },
    /// No bytes at all: Produce with acks=0 (contract P4).
    Nothing {
        /// As in [`Reply::Send`].
        mute: Duration,
    },
    /// Close the connection once the answers to earlier requests have left. Later requests are not answered.
    Close,
}

impl Reply {
    /// A response without throttling.
    pub fn send(frame: Vec<Bytes>) -> Reply {
        Reply::Send { frame, files: Vec::new(), mute: Duration::ZERO, held: None }
    }

    /// A response without throttling that keeps something until it has left.
    pub fn send_holding(frame: Vec<Bytes>, held: impl Any) -> Reply {
        Reply::send_around(frame, Vec::new(), Some(held))
    }

    /// As [`Reply::send_holding`], of which some bytes lie in files, see [`Reply::Send`].
    pub fn send_around(frame: Vec<Bytes>, files: Vec<(usize, FileRegion)>, held: Option<impl Any>) -> Reply {
        let held = held.map(|held| Box::new(held) as Box<dyn Any>);
        Reply::Send { frame, files, mute: Duration::ZERO, held }
    }

    /// No response and no throttling.
    pub fn nothing() -> Reply {
        Reply::Nothing { mute: Duration::ZERO }
    }
}

/// One connection, as a service sees it. It lives as long as the connection or any request that came on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Unique on this core for the life of the process.
    pub id: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// The address that our listener is bound to.
    pub local: SocketAddr,
    /// The name of the listener, such as `PLAINTEXT`.
    pub listener: Rc<str>,
}
