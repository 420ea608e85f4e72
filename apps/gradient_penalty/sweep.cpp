// The learning rate as an implicit penalty.

#include <cmath>

#include <fmt/format.h>

#include <capsfw/capsfw.hpp>

#include "common/chart.hpp"
#include "common/text.hpp"
#include "common/train_main.hpp"
#include "study.hpp"

namespace capsfw::apps {

namespace {

const std::vector<std::string> kColumns = {
    "lr", "steps", "training loss", "|grad L|^2", "per-sample penalty", "test %"};
constexpr const char* kAbout =
    "Plain SGD until the training loss is at most --target, or the steps are over.";

void print_row(const std::vector<std::string>& row) {
  fmt::print("{:>8}{:>15}{:>17}{:>19}{:>20}{:>17}\n", row[0], row[1], row[2], row[3], row[4],
             row[5]);
}

}  // namespace

int sweep_learning_rates(Study& study) {
  const Flags& f = study.flags;
  Ranks* const ranks = study.folder().ranks();
  Chart chart("SGD as an implicit penalty: at the same training loss");
  std::vector<double> xs, ys, tests;
  if (!study.folder().takes()) print_row(kColumns);
  std::vector<std::vector<std::string>> rows;
  for (const double lr : parse_rates(f.rates)) {
    std::vector<std::vector<double>> row(5);  // values over the seeds
    for (int k = 0; k < f.seeds && !interrupted(); ++k) {
      const std::uint64_t seed = f.seed + static_cast<std::uint64_t>(k);
      const std::string part = fmt::format("sweep-{:g}-{}", lr, seed);
      const auto add = [&](const std::vector<double>& cells) {
        for (std::size_t i = 0; i < row.size(); ++i) row[i].push_back(cells.at(i));
        xs.push_back(std::log10(lr));
        ys.push_back(std::log10(cells.at(2)));
        tests.push_back(cells.at(4));
      };
      if (!study.folder().take(part)) continue;
      if (const auto known = study.folder().results(part)) {
        add(known->at("row").to_vector<double>());
        continue;
      }
      study.folder().begin(part);
      const Data data = study.draw(seed);
      Rng rng(seed);
      const auto net = study.make_network(rng);
      SGD sgd(ParamList(net->named_parameters()), {.lr = lr});
      DataLoader loader(data.images, {.batch_size = f.batch, .shuffle = true, .seed = seed});
      Progress bar(fmt::format("lr {:g}, seed {}", lr, seed), 0, "steps");
      std::int64_t steps = 0;
      Score at = evaluate(*net, data.train, ranks);
      while (at.loss > f.target && steps < 100 * f.steps && !agree_on_interrupt(ranks)) {
        for (const Batch& batch : loader) {
          penalised_step(*net, batch, {}, f);
          sgd.step();
          bar.update(++steps, fmt::format("loss {:.4f}", at.loss));
        }
        at = evaluate(*net, data.train, ranks);
        if (!std::isfinite(at.loss)) break;
      }
      bar.finish();
      const Penalties p = measure_penalties(*net, data.train, ranks);
      const double test = evaluate(*net, data.test, ranks).accuracy;
      study.write({{"event", "sweep"},
                   {"lr", lr},
                   {"seed", seed},
                   {"steps", steps},
                   {"train_loss", at.loss},
                   {"param_penalty_batch", p.batch},
                   {"param_penalty_per_sample", p.sample},
                   {"test_accuracy", test}});
      if (interrupted()) break;
      const std::vector<double> cells{static_cast<double>(steps), at.loss, p.batch, p.sample,
                                      100 * test};
      StateDict results;
      results.set("row", from_vector(cells));
      study.folder().finish(part, results);
      add(cells);
    }
    if (interrupted()) {
      study.report().finish();
      return study.folder().takes() ? 0 : end_of_run(study.dir());
    }
    if (study.folder().takes()) continue;
    rows.push_back({fmt::format("{:g}", lr), spread_text(row[0], 1, 0), spread_text(row[1], 1, 3),
                    spread_text(row[2], 1, 4), spread_text(row[3], 1, 2),
                    spread_text(row[4], 1, 2)});
    print_row(rows.back());
    study.report().table({"Result", kAbout}, kColumns, rows);
    study.report().write();
  }
  if (study.folder().takes()) return 0;
  study.report().finish();
  chart.panel("squared gradient of the training loss", {"log10 of the learning rate", "log10"})
      .line("", xs, ys);
  chart.panel("test accuracy", {"log10 of the learning rate", "%"}).line("", xs, tests);
  chart.save(study.dir() / "lr-sweep.png");
  fmt::print("\nMade in {}: report.html, metrics.jsonl, lr-sweep.png\n", study.dir().string());
  return 0;
}

}  // namespace capsfw::apps
