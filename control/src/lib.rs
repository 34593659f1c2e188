//! Everything of wg-bounce that is not done for every packet: handshakes, timers, configuration.
