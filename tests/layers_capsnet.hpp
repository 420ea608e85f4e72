#pragma once
// Small capsule networks for the tests.

#include <capsfw/layers/capsnet.hpp>

#include "ops_support.hpp"
#include "support.hpp"

namespace capsfw::test {

/// Images [1, 8, 9], 12 primary capsules of size 2, 3 classes, 628 parameters.
inline CapsNetOptions tiny_options() {
  CapsNetOptions o;
  o.image = {1, 8, 9};
  o.convs = {{2, 3, 1}};
  o.primary = {2, 2};
  o.primary_kernel = 3;
  o.capsules = {{3, 2}};
  o.decoder_hidden = {4};
  return o;
}

}  // namespace capsfw::test
