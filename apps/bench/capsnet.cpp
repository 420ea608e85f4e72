// The network of Sabour, Frosst, Hinton 2017, and the time until a process has a first result of
// it.

#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>

#include "families.hpp"

extern char** environ;

namespace capsfw::bench {

double capsnet_flops(const CapsNetOptions& o, std::int64_t iterations, bool train) {
  std::int64_t channels = o.image[0], h = o.image[1], w = o.image[2];
  double first = 0, rest = 0;
  const auto conv = [&](std::int64_t out, std::int64_t kernel, std::int64_t stride) {
    h = (h - kernel) / stride + 1;
    w = (w - kernel) / stride + 1;
    const double flops = 2.0 * static_cast<double>(h * w * out * channels * kernel * kernel);
    channels = out;
    return flops;
  };
  for (const ConvStage& stage : o.convs) {
    const double flops = conv(stage.channels, stage.kernel, stage.stride);
    (first == 0 ? first : rest) += flops;
  }
  rest += conv(o.primary.count * o.primary.dim, o.primary_kernel, o.primary_stride);
  CapsuleSize lower{o.primary.count * h * w, o.primary.dim};
  for (const CapsuleSize& upper : o.capsules) {
    rest += 2.0 * static_cast<double>(lower.count * lower.dim * upper.count * upper.dim);
    rest += routing_flops(lower.count, upper.count, upper.dim, iterations);
    lower = upper;
  }
  std::int64_t width = lower.count * lower.dim;
  if (o.decoder == DecoderKind::fully_connected) {
    std::vector<std::int64_t> sizes = o.decoder_hidden;
    sizes.push_back(o.image.numel());
    for (const std::int64_t next : sizes) {
      rest += 2.0 * static_cast<double>(width * next);
      width = next;
    }
  }
  return train ? 2 * first + 3 * rest : first + rest;
}

Work make_capsnet(Spec& spec) {
  const bool train = spec.word("mode", {"train", "infer"}) == "train";
  const std::int64_t b = spec.integer("B", 128), side = spec.integer("size", 28, 18);
  CapsNetOptions options = CapsNetOptions::paper({1, side, side});
  options.primary.count = spec.integer("types", options.primary.count);
  const std::int64_t r = spec.integer("r", 3);
  options.dense.routing = DynamicRoutingOptions{.iterations = static_cast<int>(r)};
  spec.finish();
  Rng rng(1);
  const auto net = std::make_shared<CapsNet>(options, rng);
  const Batch batch = make_batch(b, side);
  Work work;
  work.items = static_cast<double>(b);
  work.flops = work.items * capsnet_flops(options, r, train);
  work.parameters = net->parameter_count();
  const double images = 4.0 * static_cast<double>(batch.images.numel());
  if (train) {
    work.bytes = adam_bytes(work.parameters) + images;
    work.step = training_step(net, {.lr = 1e-3}, [net, batch] {
      return capsnet_loss((*net)(batch.images, batch.labels), batch.images, batch.targets);
    });
  } else {
    net->eval();
    work.bytes = 4.0 * static_cast<double>(work.parameters) + images;
    work.step = [net, batch] {
      const NoGradGuard no_grad;
      (*net)(batch.images);
    };
  }
  return work;
}

Work make_startup(Spec& spec) {
  spec.finish();
  Work work;
  work.items = 1;
  const auto peak = std::make_shared<double>(0);
  work.peak_rss_mb = [peak] { return *peak; };
  work.step = [peak] {
    // This very program, in a process of its own.
    std::string program = "/proc/self/exe", flag = "--once", name = "capsnet:mode=infer,B=1",
                threads = fmt::format("--threads={}", num_threads());
    char* const argv[] = {program.data(), flag.data(), name.data(), threads.data(), nullptr};
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", 1, 0);  // O_WRONLY
    posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", 1, 0);
    pid_t child = 0;
    int status = 0;
    rusage usage{};
    const int failed = posix_spawn(&child, program.c_str(), &quiet, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (failed != 0 || wait4(child, &status, 0, &usage) != child || status != 0)
      throw Error("startup: the process of its own failed");
    *peak = std::max(*peak, 1024e-6 * static_cast<double>(usage.ru_maxrss));
  };
  return work;
}

}  // namespace capsfw::bench
