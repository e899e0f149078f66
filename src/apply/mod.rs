mod datum;
mod rows;
mod sql;
pub mod target;
