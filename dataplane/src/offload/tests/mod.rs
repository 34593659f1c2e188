//! Cutting and coalescing against a simple reference that builds and checks every byte.

mod coalescing;
mod cutting;
mod hostile;
mod reference;
