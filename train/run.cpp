#include <capsfw/train/run.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/optim/clip.hpp>
#include <capsfw/train/interrupt.hpp>
#include <capsfw/train/memory.hpp>
#include <capsfw/train/progress.hpp>

#include "detail/run_state.hpp"

namespace capsfw {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

constexpr std::int64_t kMaxRollbacks = 5;
/// Steps before a jump of the loss can be told, and those that its mean remembers.
constexpr std::int64_t kFirstLosses = 20, kLastLosses = 100;
constexpr double kNoLimit = std::numeric_limits<double>::infinity(),
                 kUnknown = std::numeric_limits<double>::quiet_NaN();

/// "loss 0.1234  acc 91.20 %".
std::string text_of(const Metrics& metrics) {
  std::string out;
  for (const auto& [name, value] : metrics) {
    if (std::isnan(value)) continue;
    constexpr std::string_view kShare = "accuracy";
    const bool share = name.ends_with(kShare);
    out += out.empty() ? "" : "  ";
    out += share ? fmt::format("{}acc {:.2f} %", name.substr(0, name.size() - kShare.size()),
                               100 * value)
                 : fmt::format("{} {:.4f}", name, value);
  }
  return out;
}

struct Kept {
  std::string name;
  std::function<void(StateDict&, const std::string&)> save;
  std::function<void(const StateDict&, const std::string&)> load;
};

}  // namespace

/// What a Run needs of a loader of any kind.
struct Run::Loading {
  std::int64_t batches, samples;
  std::function<void()> end_epoch;  // reads the end that follows the last batch
  Kept place;
};

struct Run::Impl {
  Impl(Module& n, Optimizer& o, Loading l, RunFolder& f, RunOptions opts)
      : net(n), optimizer(o), loading(std::move(l)), folder(f), options(std::move(opts)) {
    const auto require = [](bool good, const char* rule, double got) {
      if (!good) throw ValueError(fmt::format("Run: {}; got {}", rule, got));
    };
    require(options.epochs >= 1, "epochs must be at least 1", options.epochs);
    require(options.steps >= 0, "steps must not be negative", static_cast<double>(options.steps));
    require(options.minutes >= 0, "minutes must not be negative", options.minutes);
    require(options.clip >= 0, "clip must not be negative", options.clip);
    require(options.spike == 0 || options.spike > 1, "spike must be 0 or above 1", options.spike);
    total = options.steps > 0 ? options.steps : options.epochs * loading.batches;
    if (!options.rate) options.rate = constant_rate(optimizer.lr());
    if (options.check_numbers) guard.emplace();
  }

  // ---- time ----

  double seconds() const { return s.seconds + seconds_since(start); }
  bool stopped() const {
    return interrupted() || s.stopped != 0 || s.step >= total ||
           (options.minutes > 0 && seconds() > 60 * options.minutes);
  }
  double epochs_done() const {
    return static_cast<double>(s.step) / static_cast<double>(loading.batches);
  }
  int epochs() const { return static_cast<int>((total + loading.batches - 1) / loading.batches); }
  std::string label() const {
    return fmt::format("{}epoch {}/{}", options.label, s.epoch, epochs());
  }
  std::string where() const { return fmt::format("{}training, step {}", options.label, s.step); }

  // ---- checkpoints ----

  void save() {
    StateDict state;
    state.merge("model", net.state_dict());
    state.merge("optimizer", optimizer.state_dict());
    if (best) state.merge("best", *best);
    for (const auto& [name, rng] : net.named_generators()) rng->save(state, "generators." + name);
    loading.place.save(state, loading.place.name);
    for (const Kept& k : kept) k.save(state, "kept." + k.name);
    detail::RunState now = s;
    now.seconds = seconds();
    if (clock) now.epoch_seconds += seconds_since(*clock);
    now.save(state);
    folder.save(s.step, state);
    saved_step = s.step;
    saved_at = Clock::now();
  }

  void load(const Checkpoint& c) {
    net.load_state_dict(c.state.under("model"));
    optimizer.load_state_dict(c.state.under("optimizer"));
    best.reset();
    if (StateDict b = c.state.under("best"); b.size() > 0) best = std::move(b);
    for (const auto& [name, rng] : net.named_generators()) rng->load(c.state, "generators." + name);
    loading.place.load(c.state, loading.place.name);
    for (const Kept& k : kept) k.load(c.state, "kept." + k.name);
    s.load(c.state);
    saved_step = s.step;
    saved_at = Clock::now();
  }

  void restore() {
    restored = true;
    start = Clock::now();
    const auto c = folder.begin(options.part);
    if (!c) return;
    load(*c);
    say(fmt::format("{}goes on at step {} of {}", options.label, s.step, total));
    resumed = s.in_epoch != 0;
  }

  bool due(bool last) const {
    if (s.step == saved_step) return false;
    if (s.step == 0) return last || options.on_nan == OnNan::rollback;
    return last || (options.checkpoint_steps > 0 && s.step % options.checkpoint_steps == 0) ||
           (options.checkpoint_minutes > 0 &&
            seconds_since(saved_at) > 60 * options.checkpoint_minutes);
  }

  // ---- one step ----

  /// "" for a loss to go on with, else what is wrong with it.
  std::string complaint(double loss) const {
    if (!std::isfinite(loss)) return fmt::format("the loss is {}", loss);
    if (options.spike > 0 && s.losses >= kFirstLosses && loss > options.spike * s.mean_loss)
      return fmt::format("the loss has jumped to {:.4g} from a mean of {:.4g}", loss, s.mean_loss);
    return "";
  }

  bool refuse(const std::string& what, double loss, double norm) {
    optimizer.zero_grad();
    const std::string begin = fmt::format("{}: {}", where(), what);
    if (options.on_nan == OnNan::stop)
      throw ValueError(begin + ". Hint: a smaller --lr, or --clip 1");
    JsonFields line{{"step", s.step}, {"loss", loss}, {"grad_norm", norm}};
    if (options.on_nan == OnNan::skip_step) {
      say(begin + "; skipped");
      write("skip", line);
      ++s.step;
      ++s.batch;
      return false;
    }
    if (s.rollbacks == kMaxRollbacks)
      throw ValueError(fmt::format("{}, after {} rollbacks. Hint: a smaller --lr, or --clip 1",
                                   begin, s.rollbacks));
    const detail::RunState before = s;
    const double now = seconds();
    load(folder.last());
    s.rollbacks = before.rollbacks + 1;
    s.rate_factor = before.rate_factor / 2;
    s.seconds = now;
    start = Clock::now();
    say(fmt::format("{}; back to step {}, with {} of the learning rate", begin, s.step,
                    s.rate_factor));
    line.emplace_back("back_to", s.step);
    line.emplace_back("rate_factor", s.rate_factor);
    write("rollback", line);
    return false;
  }

  bool take(double loss, std::int64_t samples, const Metrics& metrics) {
    const bool logged =
        !options.quiet && (s.step + 1) % std::max<std::int64_t>(loading.batches / 10, 1) == 0;
    double norm = kUnknown;
    if (logged || options.clip > 0 || options.on_nan != OnNan::stop)
      norm = clip_grad_norm(net.parameters(), options.clip > 0 ? options.clip : kNoLimit);
    if (options.on_nan != OnNan::stop && !std::isfinite(norm))
      return refuse(fmt::format("the norm of the gradient is {}", norm), loss, norm);
    optimizer.set_lr(options.rate(s.step) * s.rate_factor);
    optimizer.step();
    ++s.step;
    ++s.batch;
    s.losses += 1;
    s.mean_loss += (loss - s.mean_loss) / static_cast<double>(std::min(s.losses, kLastLosses));
    const auto n = static_cast<double>(samples);
    s.samples += n;
    add("loss", n * loss);
    for (const auto& [name, value] : metrics) add(name, n * value);
    if (bar) bar->update(static_cast<std::int64_t>(s.samples), text_of(means()));
    if (logged) log_train(norm);
    return true;
  }

  void add(const std::string& name, double value) {
    for (auto& [known, sum] : s.sums)
      if (known == name) {
        sum += value;
        return;
      }
    s.sums.emplace_back(name, value);
  }

  Metrics means() const {
    Metrics out = s.sums;
    for (auto& m : out) m.second /= s.samples;
    return out;
  }

  void log_train(double norm) {
    JsonFields line{{"step", s.step}, {"epoch", s.epoch}};
    for (const auto& [name, mean] : means()) line.emplace_back(name, mean);
    line.emplace_back("lr", optimizer.lr());
    line.emplace_back("grad_norm", norm);
    write("train", line);
    // The curve shows the mean since its last point; the bar and the log that of the epoch.
    const double since = s.samples - s.drawn_samples;
    for (std::size_t i = 0; i < s.sums.size(); ++i)
      point(s.sums[i].first,
            (s.sums[i].second - (i < s.drawn.size() ? s.drawn[i].second : 0)) / since);
    s.drawn = s.sums;
    s.drawn_samples = s.samples;
  }

  /// The lines of an epoch.
  void report(const Metrics& metrics) {
    const double rate = s.samples / s.epoch_seconds;
    const Metrics mean = means();
    const std::string after = text_of(metrics);
    fmt::print("{:<12} {}{}{}   {:.0f} {}/s  {:.0f} s  peak {:.0f} MB\n", label(), text_of(mean),
               after.empty() ? "" : "   ", after, rate, options.unit, s.epoch_seconds,
               peak_memory_mb());
    JsonFields line{{"epoch", s.epoch}, {"step", s.step}};
    for (const auto& [name, value] : mean) line.emplace_back(name, value);
    for (const auto& [name, value] : metrics) line.emplace_back(name, value);
    line.emplace_back(options.unit + "_per_second", rate);
    line.emplace_back("seconds", s.epoch_seconds);
    line.emplace_back("peak_memory_mb", peak_memory_mb());
    write("epoch", line);
  }

  void point(const std::string& name, double value) {
    s.curves[name].epoch.push_back(epochs_done());
    s.curves[name].value.push_back(value);
  }

  // ---- lines ----

  void write(const std::string& event, const JsonFields& fields) {
    JsonFields line{{"event", event}};
    line.insert(line.end(), options.tags.begin(), options.tags.end());
    line.insert(line.end(), fields.begin(), fields.end());
    folder.write(line);
  }
  void say(const std::string& text) {
    if (bar) return bar->print(text);
    fmt::print(stderr, "{}\n", text);
  }

  void close_clock() {
    if (bar) bar->finish();
    bar.reset();
    if (!clock) return;
    s.epoch_seconds += seconds_since(*clock);
    clock.reset();
  }

  Module& net;
  Optimizer& optimizer;
  Loading loading;
  RunFolder& folder;
  RunOptions options;
  std::vector<Kept> kept;
  std::int64_t total = 0;

  detail::RunState s;
  std::optional<StateDict> best;

  bool restored = false, resumed = false;  // resumed: the epoch that a checkpoint was in goes on
  std::int64_t saved_step = -1;
  Clock::time_point start = Clock::now(), saved_at = start;
  std::optional<Clock::time_point> clock;  // runs while batches do
  std::optional<Progress> bar;
  std::optional<AnomalyGuard> guard;
};

void Run::ended_early() {
  throw ValueError("Run: the loader must be at the start of an epoch when the run begins");
}

template <class Loader, class Batch>
static auto end_of(Loader& loader) {
  return [&loader] {
    Batch none;
    if (loader.next(none))
      throw ValueError("Run: an epoch of the loader must have as many batches as its size() says");
  };
}

template <class Loader>
static auto place_of(Loader& loader) {
  return Kept{"loader", [&loader](StateDict& s, const std::string& p) { loader.save(s, p); },
              [&loader](const StateDict& s, const std::string& p) { loader.load(s, p); }};
}

Run::Run(
    Module& net, Optimizer& optimizer, DataLoader& loader, RunFolder& folder, RunOptions options)
    : Run(net,
          optimizer,
          Loading{loader.size(), loader.images(), end_of<DataLoader, Batch>(loader),
                  place_of(loader)},
          folder,
          std::move(options)) {}

Run::Run(
    Module& net, Optimizer& optimizer, TextLoader& loader, RunFolder& folder, RunOptions options)
    : Run(net,
          optimizer,
          Loading{loader.size(), loader.sentences(), end_of<TextLoader, TextBatch>(loader),
                  place_of(loader)},
          folder,
          std::move(options)) {}

Run::Run(Module& net, Optimizer& optimizer, Loading loading, RunFolder& folder, RunOptions options)
    : impl_(
          std::make_unique<Impl>(net, optimizer, std::move(loading), folder, std::move(options))) {}
Run::~Run() = default;

void Run::add_kept(const std::string& name,
                   std::function<void(StateDict&, const std::string&)> save,
                   std::function<void(const StateDict&, const std::string&)> load) {
  impl_->kept.push_back({name, std::move(save), std::move(load)});
}

bool Run::next_epoch() {
  Impl& m = *impl_;
  if (!m.restored) m.restore();
  if (m.resumed) return !(m.resumed = false);
  if (interrupted()) {
    if (m.due(true)) m.save();
    return false;
  }
  if (m.s.in_epoch != 0) end_epoch();
  if (m.stopped()) return false;
  ++m.s.epoch;
  m.s.in_epoch = 1;
  m.s.batch = m.s.epoch_over = 0;
  m.s.samples = m.s.drawn_samples = m.s.epoch_seconds = 0;
  m.s.sums.clear();
  m.s.drawn.clear();
  return true;
}

bool Run::go_on() {
  Impl& m = *impl_;
  if (m.s.batch >= m.loading.batches && m.s.epoch_over == 0) {
    m.loading.end_epoch();
    m.s.epoch_over = 1;
  }
  const bool last = m.stopped();
  if (m.due(last)) m.save();
  if (last || m.s.epoch_over != 0) {
    m.close_clock();
    return false;
  }
  if (!m.clock) {
    m.clock = Clock::now();
    if (m.options.quiet) return true;
    const std::int64_t most = (m.loading.samples + m.loading.batches - 1) / m.loading.batches;
    m.bar.emplace(m.label(), std::min(m.loading.samples, (m.total - m.s.step + m.s.batch) * most),
                  m.options.unit);
  }
  return true;
}

bool Run::step(const Tensor& loss, std::int64_t samples, const Metrics& metrics) {
  Impl& m = *impl_;
  const double value = loss.item();
  if (const std::string what = m.complaint(value); !what.empty())
    return m.refuse(what, value, kUnknown);
  m.optimizer.zero_grad();
  backward(loss);
  return m.take(value, samples, metrics);
}

bool Run::update(double loss, std::int64_t samples, const Metrics& metrics) {
  if (const std::string what = impl_->complaint(loss); !what.empty())
    return impl_->refuse(what, loss, kUnknown);
  return impl_->take(loss, samples, metrics);
}

void Run::end_epoch(const Metrics& metrics, std::optional<double> score) {
  Impl& m = *impl_;
  m.close_clock();
  if (interrupted()) return;
  m.s.trained_seconds += m.s.epoch_seconds;
  m.s.trained_samples += m.s.samples;
  if (!m.options.quiet) m.report(metrics);
  for (const auto& [name, value] : metrics) m.point(name, value);
  m.s.in_epoch = 0;
  if (!score ||
      !(!m.best || *score > m.s.best_score || (m.options.later_wins && *score == m.s.best_score)))
    return;
  m.s.best_epoch = m.s.epoch;
  m.s.best_step = m.s.step;
  m.s.best_score = *score;
  m.best.emplace();
  for (const auto& [name, t] : m.net.state_dict()) m.best->set(name, empty_like(t).copy_(t));
}

void Run::stop() { impl_->s.stopped = 1; }

void Run::finish() {
  Impl& m = *impl_;
  if (!interrupted() && m.due(true)) m.save();
  if (m.best) m.net.load_state_dict(*m.best);
}

void Run::write(const std::string& event, const JsonFields& fields) { impl_->write(event, fields); }

std::int64_t Run::steps() const { return impl_->s.step; }
std::int64_t Run::total() const { return impl_->total; }
int Run::epoch() const { return static_cast<int>(impl_->s.epoch); }
int Run::epochs() const { return impl_->epochs(); }
double Run::seconds() const { return impl_->seconds(); }
double Run::seconds_per_epoch() const {
  const auto& s = impl_->s;
  return s.trained_samples > 0
             ? s.trained_seconds / s.trained_samples * static_cast<double>(impl_->loading.samples)
             : kUnknown;
}
int Run::best_epoch() const { return static_cast<int>(impl_->s.best_epoch); }
double Run::best_score() const { return impl_->s.best_score; }
std::int64_t Run::best_step() const { return impl_->s.best_step; }

const Curve& Run::curve(const std::string& name) const {
  static const Curve none;
  const auto found = impl_->s.curves.find(name);
  return found == impl_->s.curves.end() ? none : found->second;
}

}  // namespace capsfw
