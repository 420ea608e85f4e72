#pragma once
// Memory of this process and of the machine, as the operating system counts it.

#include <cstddef>

namespace capsfw {

/// Largest resident memory so far, in MB (10^6 bytes): VmHWM of /proc/self/status, else getrusage.
double peak_memory_mb();

/// Resident memory now, in bytes: VmRSS of /proc/self/status; 0 if the system does not say.
std::size_t resident_memory();

/// Bytes that this process may still take before the machine swaps or kills: the smaller one of
/// MemAvailable of /proc/meminfo and what the limit of the control group (v2, else v1) leaves; 0 if
/// the system does not say.
std::size_t available_memory();

}  // namespace capsfw
