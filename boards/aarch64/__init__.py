"""An ARM board without hardware: Debian for arm64 and the real aarch64 wheels under qemu-user. For correctness only."""
