#include "curves.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/optim/json_log.hpp>
#include "common/chart.hpp"
#include "common/text.hpp"
#include "families.hpp"

namespace capsfw::bench {
namespace {

struct Sweep {
  std::string name, title;
  std::string spec;  ///< "{}" stands for the number that grows
  std::vector<int> values;
  bool per_item;     ///< milliseconds per image instead of per step
  bool powers;       ///< the axis is a logarithm
  std::string what;  ///< grows
};

std::vector<Sweep> sweeps() {
  return {{"batch",
           "CapsNet, training step: time per image over the batch",
           "capsnet:mode=train,B={}",
           {1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
           true,
           true,
           "batch"},
          {"image-size",
           "CapsNet, training step, batch 8: time per image over its height and width",
           "capsnet:mode=train,B=8,size={}",
           {28, 36, 44, 52, 64, 80, 96},
           true,
           false,
           "pixels"},
          {"iterations",
           "routing of votes [128, 1152, 10, 16], forward and backward",
           "routing:mode=fwdbwd,r={}",
           {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
           false,
           false,
           "iterations"},
          {"capsules",
           "votes and routing, batch 32, 10 parents, forward and backward",
           "routing:mode=fwdbwd,B=32,K=8,I={}",
           {128, 256, 512, 1024, 2048, 4096, 8192},
           false,
           true,
           "children"}};
}

std::vector<Sweep> small_sweeps() {
  return {{"iterations",
           "small",
           "routing:mode=fwdbwd,B=2,I=8,J=2,D=4,r={}",
           {1, 2},
           false,
           false,
           "iterations"}};
}

/// Milliseconds of a step, and those that the machine cannot beat.
struct Point {
  double ms, limit;
};

double limit_ms(const Work& work, const Limits& limits) {
  return std::max(work.flops / limits.fma, work.bytes / limits.read) * 1e-6;
}

Point measure_point(const std::string& spec,
                    const Limits& limits,
                    const MeasureOptions& options,
                    Probe* probe) {
  trim_memory();
  const Work work = make_work(spec);
  return {summarize(measure(work, options, probe)).ms, limit_ms(work, limits)};
}

class Writer {
 public:
  Writer(const std::filesystem::path& dir, const Limits& limits)
      : dir_(dir), limits_(limits), log_(dir / "curves.jsonl", {.fresh = true}) {
    log_.write({{"fma_gflops", limits.fma}, {"read_gbs", limits.read}, {"threads", num_threads()}});
  }

  void sweep(const Sweep& s, const MeasureOptions& options, Probe* probe) {
    std::vector<double> xs, ms, limit;
    std::string table = fmt::format(
        "\n{}\n\n| {} | ms{} | limit | times the limit |\n| --: | --: | "
        "--: | --: |\n",
        s.title, s.what, s.per_item ? " per image" : "");
    for (const int value : s.values) {
      if (interrupted()) return;
      const std::string spec = fmt::format(fmt::runtime(s.spec), value);
      const Point p = measure_point(spec, limits_, options, probe);
      const double items = s.per_item ? make_work(spec).items : 1;
      xs.push_back(s.powers ? std::log2(value) : value);
      ms.push_back(p.ms / items);
      limit.push_back(p.limit / items);
      const std::string row = fmt::format("| {} | {:.3g} | {:.3g} | {:.2f} |\n", value, ms.back(),
                                          limit.back(), p.ms / p.limit);
      fmt::print("{:<44} {:.3f} ms, limit {:.3f} ms\n", spec, p.ms, p.limit);
      table += row;
      log_.write({{"workload", spec}, {"ms", p.ms}, {"limit_ms", p.limit}});
    }
    apps::Chart chart(s.title);
    chart
        .panel(s.per_item ? "ms per image" : "ms per step",
               {s.powers ? "log2 of " + s.what : s.what, "ms"})
        .line("capsfw", xs, ms)
        .line("limit of direct arithmetic and memory", xs, limit);
    chart.save(dir_ / (s.name + ".png"));
    tables_ += table;
  }

  /// Time with one thread over the time with n.
  void threads(const std::vector<std::string>& specs, const MeasureOptions& options, int most) {
    tables_ += "\nThreads\n\n| workload | ms, 1 thread |";
    for (int n = 2; n <= most; ++n) tables_ += fmt::format(" {} threads | gain |", n);
    tables_ += "\n| --- | --: |";
    for (int n = 2; n <= most; ++n) tables_ += " --: | --: |";
    tables_ += "\n";
    for (const std::string& spec : specs) {
      double one = 0;
      std::string row = fmt::format("| `{}` |", spec);
      for (int n = 1; n <= most; ++n) {
        if (interrupted()) return set_num_threads(most);
        set_num_threads(n);
        Probe probe(n);
        const double ms = measure_point(spec, limits_, options, &probe).ms;
        if (n == 1) one = ms;
        row +=
            n == 1 ? fmt::format(" {:.3g} |", ms) : fmt::format(" {:.3g} | {:.2f} |", ms, one / ms);
        fmt::print("{:<44} {} threads: {:.3f} ms\n", spec, n, ms);
        log_.write({{"workload", spec}, {"threads", n}, {"ms", ms}});
      }
      tables_ += row + "\n";
    }
    set_num_threads(most);
  }

  void finish() { apps::save_text(dir_ / "curves.md", tables_); }

 private:
  std::filesystem::path dir_;
  Limits limits_;
  JsonLog log_;
  std::string tables_;
};

}  // namespace

void draw_curves(const std::filesystem::path& dir, const MeasureOptions& options, bool smoke) {
  std::filesystem::create_directories(dir);
  MeasureOptions few = options;
  few.smoke = smoke;
  const Limits limits = smoke ? Limits{1, 1, 1, 1} : measure_limits();
  const int most = num_threads();
  Probe probe(most);
  Writer writer(dir, limits);
  for (const Sweep& s : smoke ? small_sweeps() : sweeps()) writer.sweep(s, few, &probe);
  if (!smoke && most > 1)
    writer.threads({"capsnet:mode=train,B=128", "capsnet:mode=infer,B=128", "routing:mode=fwdbwd",
                    "routing:mode=fwdbwd,K=8", "em:mode=train,B=64", "effcaps:mode=train,B=128",
                    "text:model=A,L=50", "gp:net=caps,B=32,wrt=x"},
                   few, most);
  writer.finish();
  fmt::print("\nMade in {}: curves.md, curves.jsonl and a picture of each {}\n", dir.string(),
             interrupted() ? "curve that was finished" : "curve");
}

}  // namespace capsfw::bench
