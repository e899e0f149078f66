//! debshrew follows a metashrew server into PostgreSQL, one transaction a block, through reorgs.

pub mod apply;
pub mod block;
pub mod change;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod db;
pub mod failure;
pub mod pipeline;
pub mod reorg;
pub mod runtime;
pub mod simulate;
pub mod source;
pub mod telemetry;
