#pragma once
// Memory of this process, as the operating system counts it.

namespace capsfw {

/// Largest resident memory so far, in MB (10^6 bytes): VmHWM of /proc/self/status, else getrusage.
double peak_memory_mb();

}  // namespace capsfw
