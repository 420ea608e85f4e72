#include "detail/run_impl.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include <capsfw/core/error.hpp>
#include <capsfw/optim/clip.hpp>
#include <capsfw/optim/memory.hpp>

namespace capsfw {
namespace {

using detail::seconds_since;

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

}  // namespace

Run::Impl::Impl(Module& n, Optimizer& o, Loading l, RunFolder& f, RunOptions opts)
    : net(n), optimizer(o), loading(std::move(l)), folder(f), options(std::move(opts)) {
  const auto require = [](bool good, const char* rule, double got) {
    if (!good) throw ValueError(fmt::format("Run: {}; got {}", rule, got));
  };
  require(options.epochs >= 1, "epochs must be at least 1", options.epochs);
  require(options.steps >= 0, "steps must not be negative", static_cast<double>(options.steps));
  require(options.minutes >= 0, "minutes must not be negative", options.minutes);
  require(options.clip >= 0, "clip must not be negative", options.clip);
  require(options.average >= 0 && options.average < 1, "average must lie in [0, 1)",
          options.average);
  require(options.spike == 0 || options.spike > 1, "spike must be 0 or above 1", options.spike);
  if (options.on_nan == OnNan::rollback && !folder.keeps())
    throw ValueError(
        "Run: OnNan::rollback goes back to a checkpoint, and the folder keeps none (keep = 0)");
  total = options.steps > 0 ? options.steps : options.epochs * loading.batches;
  if (!options.rate) options.rate = constant_rate(optimizer.lr());
  if (options.check_numbers) guard.emplace();
  begin_average();
  share();
}

void Run::Impl::begin_average() {
  if (options.average == 0) return;
  NamedTensors averaged = net.named_parameters();
  for (const auto& [name, t] : net.named_buffers())
    if (is_floating(t.dtype())) averaged.emplace_back(name, t);
  average.emplace(averaged, EMAOptions{.decay = options.average, .warm_up = true});
}

StateDict Run::Impl::state() const {
  StateDict state;
  state.merge("model", net.state_dict());
  state.merge("optimizer", optimizer.state_dict());
  if (best) state.merge("best", *best);
  if (average) state.merge("average", average->state_dict());
  for (const auto& [name, rng] : net.named_generators()) rng->save(state, "generators." + name);
  loading.place.save(state, loading.place.name);
  for (const Kept& k : kept) k.save(state, "kept." + k.name);
  detail::RunState now = s;
  now.seconds = seconds();
  now.epoch_seconds = seconds_in_epoch();
  now.save(state);
  return state;
}

void Run::Impl::save() {
  if (!silent()) folder.save(s.step, state());
  saved_step = s.step;
  saved_at = Clock::now();
}

void Run::Impl::load(const Checkpoint& c) {
  net.load_state_dict(c.state.under("model"));
  optimizer.load_state_dict(c.state.under("optimizer"));
  if (average) average->load_state_dict(c.state.under("average"));
  best.reset();
  if (StateDict b = c.state.under("best"); b.size() > 0) best = std::move(b);
  for (const auto& [name, rng] : net.named_generators()) rng->load(c.state, "generators." + name);
  loading.place.load(c.state, loading.place.name);
  for (const Kept& k : kept) k.load(c.state, "kept." + k.name);
  s.load(c.state);
  saved_step = s.step;
  saved_at = Clock::now();
}

void Run::Impl::restore() {
  restored = true;
  start = Clock::now();
  if (ranks != nullptr) traffic = ranks->traffic();
  const auto c = folder.begin(options.part);
  if (!c) return start_together();
  load(*c);
  say(fmt::format("{}goes on at step {} of {}", options.label, s.step, total));
  resumed = s.in_epoch != 0;
  first_step = s.step;
}

bool Run::Impl::due(bool last) const {
  if (s.step == saved_step) return false;
  if (s.step == 0) return last || options.on_nan == OnNan::rollback;
  return last || (options.checkpoint_steps > 0 && s.step % options.checkpoint_steps == 0) ||
         (options.checkpoint_minutes > 0 &&
          seconds_since(saved_at) > 60 * options.checkpoint_minutes);
}

std::string Run::Impl::complaint(double loss) const {
  if (std::isinf(loss))
    return fmt::format("the loss is {} (squares of f32 overflow above 1.8e19)", loss);
  if (std::isnan(loss)) return fmt::format("the loss is {}", loss);
  if (options.spike > 0 && s.losses >= kFirstLosses && s.mean_loss > 0 &&
      loss > options.spike * s.mean_loss)
    return fmt::format("the loss has jumped to {:.4g} from a mean of {:.4g}", loss, s.mean_loss);
  return "";
}

void Run::Impl::forget_gradients() {
  net.zero_grad();  // it may have parameters that the optimizer has not
  optimizer.zero_grad();
}

bool Run::Impl::refuse(const OverflowError& e, double loss, const Metrics& metrics) {
  if (!sharding) return refuse(e.what(), loss, kUnknown, "");  // it has a hint of its own
  overflow = e.what();
  return take_shard(kUnknown, metrics);  // all ranks have to hear of it
}

bool Run::Impl::refuse(const std::string& what, double loss, double norm, const std::string& hint) {
  forget_gradients();
  const std::string begin = fmt::format("{}: {}", where(), what);
  if (options.on_nan == OnNan::stop) throw ValueError(begin + hint);
  JsonFields line{{"step", s.step}, {"loss", loss}, {"grad_norm", norm}};
  if (options.on_nan == OnNan::skip_step) {
    say(begin + "; skipped");
    write("skip", line);
    ++s.step;
    ++s.batch;
    return false;
  }
  if (s.rollbacks == kMaxRollbacks)
    throw ValueError(fmt::format("{}, after {} rollbacks{}", begin, s.rollbacks, hint));
  const detail::RunState before = s;
  const double now = seconds();
  load(folder.last());
  s.rollbacks = before.rollbacks + 1;
  s.rate_factor = before.rate_factor / 2;
  s.seconds = now;
  start = Clock::now();
  if (clock) clock = Clock::now();  // what it had counted is in the checkpoint
  say(fmt::format("{}; back to step {}, with {} of the learning rate", begin, s.step,
                  s.rate_factor));
  line.emplace_back("back_to", s.step);
  line.emplace_back("rate_factor", s.rate_factor);
  write("rollback", line);
  return false;
}

bool Run::Impl::take(double loss, std::int64_t samples, const Metrics& metrics) {
  const bool logged =
      !options.quiet && (s.step + 1) % std::max<std::int64_t>(loading.batches / 10, 1) == 0;
  // In every step: what is not finite must not reach the weights, nor a checkpoint.
  const double norm =
      clip_grad_norm(optimizer.parameters(), options.clip > 0 ? options.clip : kNoLimit);
  if (!std::isfinite(norm))
    return refuse(fmt::format("the norm of the gradient is {}", std::abs(norm)), loss, norm);
  optimizer.set_lr(options.rate(s.step) * s.rate_factor);
  optimizer.step();
  if (average) average->update();
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

void Run::Impl::add(const std::string& name, double value) {
  for (auto& [known, sum] : s.sums)
    if (known == name) {
      sum += value;
      return;
    }
  s.sums.emplace_back(name, value);
}

Metrics Run::Impl::means() const {
  Metrics out = s.sums;
  for (auto& m : out) m.second /= s.samples;
  return out;
}

void Run::Impl::log_train(double norm) {
  JsonFields line{{"step", s.step}, {"epoch", s.epoch}};
  for (const auto& [name, mean] : means()) line.emplace_back(name, mean);
  line.emplace_back("lr", optimizer.lr());
  line.emplace_back("grad_norm", norm);
  line.emplace_back("samples", static_cast<std::int64_t>(s.samples));
  line.emplace_back(options.unit + "_per_second", s.samples / seconds_in_epoch());
  line.emplace_back("peak_memory_mb", peak_memory_mb());
  write("train", line);
  // The curve shows the mean since its last point; the bar and the log that of the epoch.
  const double since = s.samples - s.drawn_samples;
  for (std::size_t i = 0; i < s.sums.size(); ++i)
    point(s.sums[i].first,
          (s.sums[i].second - (i < s.drawn.size() ? s.drawn[i].second : 0)) / since);
  s.drawn = s.sums;
  s.drawn_samples = s.samples;
}

void Run::Impl::report(const Metrics& metrics) {
  const double rate = s.samples / s.epoch_seconds;
  const Metrics mean = means();
  const std::string after = text_of(metrics);
  if (!silent())
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

void Run::Impl::write(const std::string& event, const JsonFields& fields) {
  JsonFields line{{"event", event}};
  line.insert(line.end(), options.tags.begin(), options.tags.end());
  line.insert(line.end(), fields.begin(), fields.end());
  folder.write(line);
}

void Run::Impl::close_clock() {
  if (bar) bar->finish();
  bar.reset();
  if (!clock) return;
  s.epoch_seconds += seconds_since(*clock);
  clock.reset();
}
}  // namespace capsfw
