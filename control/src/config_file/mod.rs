//! Configuration files in the format of wg-quick(8), and the problems in them. Pure: a text comes
//! in, a [`model::Config`] and [`problem::Problem`]s come out.
//!
//! 1. [`lines`] splits a text into sections, settings and comments, each with its place.
//! 2. [`value`] reads the value of one setting.
//! 3. [`read`] builds the configuration. It goes on after an error, so that all are found at once.
//! 4. [`overlaps`] compares the peers with each other, for warnings.
//!
//! [`strip`] leaves out what wg(8) does not understand. [`edit`] adds and removes peers, with
//! addresses that [`free_address`] finds; [`save`] writes a running configuration into its file.
//!
//! Settings mean the same as to wg(8) and wg-quick(8). All that these accept is accepted, but for
//! names of ports, and texts that are not UTF-8.

pub mod edit;
pub mod free_address;
pub mod lines;
pub mod model;
pub mod overlaps;
pub mod problem;
pub mod quote;
pub mod read;
pub mod save;
pub mod state;
pub mod strip;
#[cfg(test)]
mod tests;
pub mod value;
