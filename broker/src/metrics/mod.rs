//! Counters and figures: plain cells on each core, put together when somebody looks.
//!
//! | file | what is in it |
//! |---|---|
//! | `core.rs`, `requests.rs`, `topics.rs` | what a core counts into: [`CoreMetrics`], by API, by topic |
//! | `figures.rs` | what a core tells when it is asked |
//! | `process.rs` | what the kernel knows about this process |
//! | `scraper.rs` | asking the cores, and noticing those that do not answer |
//! | `merge.rs` | what they have told, put together |
//! | `families.rs` | the metrics there are |
//! | `exposition.rs` | the text that Prometheus reads |

mod core;
mod exposition;
mod families;
mod figures;
mod merge;
mod process;
mod requests;
mod scraper;
mod topics;

pub use core::{CoreMetrics, CoreSnapshot};
pub use exposition::render;
pub use families::document;
pub use figures::{
    Bounds, Committed, CoreFigures, GroupFigures, Holdings, LogDirFigures, PartitionFigures, Pool,
    PoolFigures, TopicFigures,
};
pub use merge::{BrokerRow, CoreRow, Scrape};
pub use process::ProcessFigures;
pub use requests::{RequestFigures, RequestMetrics, Tally, UnderWay};
pub use scraper::{Questions, Scraper};
pub use topics::{TopicBoard, TopicCounters, TopicCounts, TopicTable};
