"""Image restoration: learned denoisers, invertible lifting networks, plug-and-play solvers."""
