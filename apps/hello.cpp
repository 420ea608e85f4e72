// The smallest program: copy this file, and a program of its name is in the next build.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"

using namespace capsfw;

int main(int argc, char** argv) {
  apps::Args args("hello", "Squashes one vector.");
  return apps::run_main(args, argc, argv, [] {
    fmt::print("{}\n", to_string(squash(from_vector<float>({3, 4}))));
    return 0;
  });
}
