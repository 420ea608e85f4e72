#include "report.hpp"

#include <fmt/format.h>

#include <capsfw/core/runtime.hpp>
#include <capsfw/optim/json_log.hpp>

namespace capsfw::bench {
namespace {

double per_second(double amount, double ms) { return amount / ms * 1e3; }

/// "12.3", or "" where there is nothing to say.
std::string cell(double value, int decimals = 1) {
  return value > 0 ? fmt::format("{:.{}f}", value, decimals) : std::string();
}

std::string percent(double part, double whole) {
  return part > 0 && whole > 0 ? fmt::format("{:.0f}", 100 * part / whole) : std::string();
}

JsonFields fields_of(const Result& r) {
  return {{"workload", r.spec},
          {"threads", r.threads},
          {"ms", r.time.ms},
          {"ms_low", r.time.low},
          {"ms_high", r.time.high},
          {"repetitions", r.time.all},
          {"clean", r.time.clean},
          {"items", r.items},
          {"items_per_s", per_second(r.items, r.time.ms)},
          {"flops", r.flops},
          {"gflops", per_second(r.flops, r.time.ms) * 1e-9},
          {"bytes", r.bytes},
          {"gbs", per_second(r.bytes, r.time.ms) * 1e-9},
          {"parameters", r.parameters},
          {"peak_tensor_mb", r.peak_tensor_mb},
          {"peak_rss_mb", r.peak_rss_mb}};
}

}  // namespace

std::string limits_line(const Limits& l, bool json) {
  if (json) {
    const RuntimeInfo info = runtime_info();
    return json_line({{"machine", info.cpu},
                      {"version", info.version},
                      {"instructions", info.instructions},
                      {"blas", info.blas},
                      {"threads", info.threads},
                      {"fma_gflops", l.fma},
                      {"sgemm_gflops", l.sgemm},
                      {"read_gbs", l.read},
                      {"triad_gbs", l.triad}});
  }
  return fmt::format(
      "limits: multiply-add {:.0f} GFLOP/s, matmul 2048 {:.0f} GFLOP/s, memory read {:.1f} GB/s, "
      "triad {:.1f} GB/s",
      l.fma, l.sgemm, l.read, l.triad);
}

std::string table_heading() {
  return fmt::format("{:<42} {:>9} {:>19} {:>6} {:>8} {:>8} {:>6} {:>5} {:>6} {:>5} {:>8} {:>8}",
                     "workload", "ms", "range", "clean", "items/s", "GFLOP/s", "%sgemm", "%fma",
                     "GB/s", "%read", "tensorMB", "rss MB");
}

std::string result_line(const Result& r, const std::optional<Limits>& limits, bool json) {
  const double gflops = per_second(r.flops, r.time.ms) * 1e-9,
               gbs = per_second(r.bytes, r.time.ms) * 1e-9;
  const Limits l = limits.value_or(Limits{});
  if (json) {
    JsonFields fields = fields_of(r);
    if (limits) {
      fields.emplace_back("share_of_sgemm", gflops / l.sgemm);
      fields.emplace_back("share_of_fma", gflops / l.fma);
      fields.emplace_back("share_of_read", gbs / l.read);
    }
    return json_line(fields);
  }
  return fmt::format("{:<42} {:>9.3f} {:>19} {:>6} {:>8} {:>8} {:>6} {:>5} {:>6} {:>5} {:>8} {:>8}",
                     r.spec, r.time.ms, fmt::format("{:.3f}..{:.3f}", r.time.low, r.time.high),
                     fmt::format("{}/{}", r.time.clean, r.time.all),
                     cell(per_second(r.items, r.time.ms), 0), cell(gflops),
                     percent(gflops, l.sgemm), percent(gflops, l.fma), cell(gbs),
                     percent(gbs, l.read), cell(r.peak_tensor_mb), cell(r.peak_rss_mb, 0));
}

std::string torch_heading() {
  return fmt::format("{:<42} {:>9} {:>9} {:>6} {:>15} {:>6} {:>8} {:>8}  {}", "workload", "ms",
                     "torch ms", "ratio", "range", "clean", "rss MB", "torch MB",
                     "fastest of PyTorch");
}

std::string torch_line(const Result& r, const TorchResult& t, bool json) {
  if (json) {
    JsonFields fields = fields_of(r);
    fields.emplace_back("torch_variant", t.variant);
    fields.emplace_back("torch_ms", t.ms);
    fields.emplace_back("paired_ms", t.ours_ms);
    fields.emplace_back("ratio", t.ratio);
    fields.emplace_back("ratio_low", t.low);
    fields.emplace_back("ratio_high", t.high);
    fields.emplace_back("pairs", t.pairs);
    fields.emplace_back("clean_pairs", t.clean);
    fields.emplace_back("torch_peak_rss_mb", t.peak_mb);
    return json_line(fields);
  }
  return fmt::format("{:<42} {:>9.3f} {:>9.3f} {:>6.2f} {:>15} {:>6} {:>8.0f} {:>8.0f}  {}", r.spec,
                     t.ours_ms, t.ms, t.ratio, fmt::format("{:.2f}..{:.2f}", t.low, t.high),
                     fmt::format("{}/{}", t.clean, t.pairs), r.peak_rss_mb, t.peak_mb, t.variant);
}

}  // namespace capsfw::bench
