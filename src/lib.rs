//! debshrew follows a metashrew server into PostgreSQL, one transaction a block, through reorgs.

pub mod block;
pub mod change;
pub mod cli;
pub mod cluster;
pub mod commit;
pub mod config;
pub mod db;
pub mod failure;
pub mod file;
pub mod observe;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod pipeline;
pub mod printable;
pub mod register;
pub mod reorg;
pub mod runtime;
pub mod schema;
pub mod server;
pub mod simulate;
pub mod source;
pub mod table;
pub mod telemetry;
pub mod terminal;
pub mod undo;
pub mod view;
