//! Real binaries, real sockets, real disks, kill -9.
