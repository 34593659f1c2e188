//! Metrics for Prometheus, in the text format OpenMetrics 1.0: [`text`] writes a report in it,
//! [`server`] serves it by HTTP.

pub mod server;
pub mod text;
