#include <capsfw/optim/run.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>

#include "detail/run_impl.hpp"

namespace capsfw {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

}  // namespace

void Run::ended_early() {
  throw ValueError("Run: the loader must be at the start of an epoch when the run begins");
}

template <class Loader, class Batch>
static auto end_of(Loader& loader) {
  return [&loader] {
    std::vector<Batch> none;
    if (loader.next(none))
      throw ValueError("Run: an epoch of the loader must have as many batches as its size() says");
  };
}

template <class Loader>
static auto place_of(Loader& loader) {
  return detail::Kept{"loader",
                      [&loader](StateDict& s, const std::string& p) { loader.save(s, p); },
                      [&loader](const StateDict& s, const std::string& p) { loader.load(s, p); }};
}

Run::Run(
    Module& net, Optimizer& optimizer, DataLoader& loader, RunFolder& folder, RunOptions options)
    : Run(net,
          optimizer,
          Loading{loader.size(),
                  loader.options().drop_last ? loader.size() * loader.options().batch_size
                                             : loader.images(),
                  end_of<DataLoader, Batch>(loader),
                  [&loader](const Shards& s) { loader.shard(s); }, place_of(loader)},
          folder,
          std::move(options)) {}

Run::Run(
    Module& net, Optimizer& optimizer, TextLoader& loader, RunFolder& folder, RunOptions options)
    : Run(net,
          optimizer,
          Loading{loader.size(), loader.sentences(), end_of<TextLoader, TextBatch>(loader),
                  [&loader](const Shards& s) { loader.shard(s); }, place_of(loader)},
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

void Run::add_generator(Rng& rng) {
  if (impl_->sharding) impl_->sharding->add_generator(rng);
}

bool Run::next_epoch() {
  Impl& m = *impl_;
  if (!m.restored) m.restore();
  if (m.resumed) return !(m.resumed = false);
  m.meet();
  if (m.halted()) {
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
  if (m.folder.ranks() != nullptr) m.folder.ranks()->progress();
  const bool last = m.stopped();
  if (m.due(last)) m.save();
  if (last || m.s.epoch_over != 0) {
    m.close_clock();
    return false;
  }
  if (!m.clock) {
    m.clock = detail::Clock::now();
    if (m.options.quiet || m.silent()) return true;
    const std::int64_t most = (m.loading.samples + m.loading.batches - 1) / m.loading.batches;
    m.bar.emplace(m.label(), std::min(m.loading.samples, (m.total - m.s.step + m.s.batch) * most),
                  m.options.unit);
  }
  return true;
}

void Run::begin_batch(std::int64_t samples) {
  Impl& m = *impl_;
  if (!m.sharding) return;
  m.sharding->begin(samples);
  if (m.sharding->left() == 0) m.take_sum(samples);  // the others have shards
}

void Run::enter_shard() {
  if (impl_->sharding) impl_->sharding->enter();
}

bool Run::step(const Tensor& loss, std::int64_t samples, const Metrics& metrics) {
  Impl& m = *impl_;
  const double value = loss.item();
  if (m.sharding) {
    try {
      m.sharding->backward_of(loss);
    } catch (const OverflowError& e) {
      return m.refuse(e, value, metrics);
    }
    return m.take_shard(value, metrics);
  }
  if (const std::string what = m.complaint(value); !what.empty())
    return m.refuse(what, value, kUnknown);
  m.forget_gradients();
  try {
    backward(loss);
  } catch (const OverflowError& e) {
    return m.refuse(e, value, metrics);
  }
  return m.take(value, samples, metrics);
}

bool Run::update(double loss, std::int64_t samples, const Metrics& metrics) {
  if (impl_->sharding) return impl_->take_shard(loss, metrics);
  if (const std::string what = impl_->complaint(loss); !what.empty())
    return impl_->refuse(what, loss, kUnknown);
  return impl_->take(loss, samples, metrics);
}

void Run::attempt(const std::function<void()>& step) {
  try {
    step();
  } catch (const OverflowError& e) {
    impl_->refuse(e, kUnknown, {});
  }
}

void Run::averaged(const std::function<void()>& evaluate) {
  std::optional<EMA>& average = impl_->average;
  if (!average || average->applied()) return evaluate();
  struct Restore {
    EMA& average;
    ~Restore() { average.restore(); }
  };
  impl_->compare_weights();  // end_epoch() will see the averages
  average->apply();
  const Restore behind{*average};
  evaluate();
}

void Run::end_epoch(const Metrics& metrics, std::optional<double> score) {
  Impl& m = *impl_;
  m.close_clock();
  if (m.s.in_epoch == 0) return;  // went back to a checkpoint behind an epoch that was reported
  m.compare_weights();
  m.meet();
  if (m.halted()) return;
  m.s.trained_seconds += m.s.epoch_seconds;
  m.s.trained_samples += m.s.samples;
  if (!m.options.quiet) m.report(metrics);
  for (const auto& [name, value] : metrics) m.point(name, value);
  m.s.in_epoch = 0;
  if (!score || std::isnan(*score) ||
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
  if (m.best)
    m.net.load_state_dict(*m.best);
  else if (m.average && !m.average->applied())
    m.average->apply();
  m.say_traffic();
}

void Run::write(const std::string& event, const JsonFields& fields) { impl_->write(event, fields); }

std::int64_t Run::steps() const { return impl_->s.step; }
bool Run::averages() const { return impl_->average.has_value(); }
std::int64_t Run::shard() const { return impl_->sharding ? impl_->sharding->shard() : 0; }
std::int64_t Run::shards() const { return impl_->sharding ? impl_->sharding->shards().count : 1; }
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
