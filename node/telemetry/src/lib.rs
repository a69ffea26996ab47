//! Log lines, metrics, health and status endpoints shared by the programs.
