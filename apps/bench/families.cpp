#include "families.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/args.hpp"

namespace capsfw::bench {
namespace {

struct Family {
  std::string name;
  Work (*make)(Spec&);
};

const std::vector<Family>& families() {
  static const std::vector<Family> all = {
      {"capsnet", make_capsnet},    {"routing", make_routing}, {"em", make_em},
      {"emroute", make_em_routing}, {"gp", make_penalty},      {"effcaps", make_efficient},
      {"text", make_text},          {"prim", make_primitive},  {"startup", make_startup}};
  return all;
}

}  // namespace

Work make_work(const std::string& text) {
  Spec spec(text);
  std::vector<std::string> names;
  for (const Family& f : families()) {
    names.push_back(f.name);
    if (f.name != spec.family()) continue;
    return f.make(spec);
  }
  throw apps::UsageError(fmt::format("workload '{}': no family '{}'; there are {}", text,
                                     spec.family(), fmt::join(names, ", ")));
}

std::vector<Named> standard_workloads() {
  std::vector<Named> all = {
      {"capsnet:mode=train,B=128", "CapsNet on 28 x 28 images, training step"},
      {"capsnet:mode=train,B=16", "the same, small batch"},
      {"capsnet:mode=train,B=512", "the same, large batch"},
      {"capsnet:mode=infer,B=128", "CapsNet, inference"},
      {"capsnet:mode=infer,B=16", "the same, small batch"},
      {"capsnet:mode=infer,B=512", "the same, large batch"},
      {"routing:mode=fwd", "routing of given votes [128, 1152, 10, 16], r = 3"},
      {"routing:mode=fwdbwd", "the same with its gradient"},
      {"routing:mode=fwdbwd,r=10", "the same, ten iterations"},
      {"routing:mode=fwd,K=8", "votes from u [128, 1152, 8], and routing"},
      {"routing:mode=fwdbwd,K=8", "the same with its gradients"},
      {"routing:mode=fwdbwd,B=32,I=4608,J=32", "routing of many capsules"},
      {"routing:mode=fwdbwd,B=32,I=4608,J=32,K=8", "votes and routing of many capsules"},
      {"em:mode=train,B=64", "matrix capsules A64 B8 C16 D16, two EM iterations, training step"},
      {"em:mode=infer,B=64", "the same, inference"},
      {"em:mode=train,B=64,net=library", "MatrixCapsNet::small (no padding): a smaller map"},
      {"emroute:mode=fwd", "EM routing of given votes [64, 288, 32, 16], r = 3"},
      {"emroute:mode=fwdbwd", "the same with its gradient"},
      {"gp:net=mlp,pen=0", "784-512-512-10, tanh, training step without penalty"},
      {"gp:net=mlp,wrt=x,act=tanh", "the same with a penalty on the gradients of the inputs"},
      {"gp:net=mlp,wrt=theta,act=tanh",
       "the same with a penalty on the gradient of the parameters"},
      {"gp:net=caps,B=32,pen=0", "CapsNet, margin loss, without penalty"},
      {"gp:net=caps,B=32,wrt=x", "the same with a penalty on the gradients of the images"},
      {"gp:net=caps,B=32,wrt=theta", "the same with a penalty on the gradient of the parameters"},
      {"effcaps:mode=train,B=128", "Efficient-CapsNet with decoder, training step"},
      {"effcaps:mode=train,B=16", "the same, small batch"},
      {"effcaps:mode=infer,B=128", "the same, inference"},
      {"text:model=A,L=50", "text capsules, 25 texts of 50 words, training step"},
      {"text:model=A,L=50,mode=infer", "the same, inference"},
      {"text:model=A,L=200", "texts of 200 words"},
      {"text:model=B,L=200", "the same with three n-gram sizes"},
      {"prim:op=convfwd,layer=2", "9 x 9 stride 2, 256 -> 256 channels on 20 x 20, batch 128"},
      {"prim:op=convbwd,layer=2", "its gradients of input, weight and bias"},
      {"startup", "process start to the first result of a CapsNet, batch 1"}};
  for (const char* op : {"convfwd,layer=1",
                         "convbwd_w,layer=1",
                         "mm",
                         "mm,m=128,n=512,k=784",
                         "bmm",
                         "einsum",
                         "votes",
                         "weighted_sum",
                         "agreement",
                         "squash",
                         "softmax_last",
                         "softmax_mid",
                         "logsumexp",
                         "exp",
                         "sigmoid",
                         "tanh",
                         "relu",
                         "add",
                         "add_row",
                         "sum",
                         "sum_axis",
                         "sum_last16",
                         "max_axis",
                         "transpose",
                         "cat",
                         "gather",
                         "embedding",
                         "sort",
                         "maxpool",
                         "avgpool",
                         "unfold",
                         "batchnorm",
                         "layernorm",
                         "cholesky",
                         "adam",
                         "dispatch",
                         "dispatch_grad"})
    all.push_back({fmt::format("prim:op={}", op), "an op alone"});
  return all;
}

std::vector<Named> smoke_workloads() {
  std::vector<Named> all;
  for (const char* spec :
       {"capsnet:mode=train,B=2", "capsnet:mode=infer,B=1", "routing:mode=fwdbwd,B=2,I=32",
        "routing:mode=fwdbwd,B=2,I=32,K=8", "routing:mode=fwd,B=2,I=32,K=8", "em:mode=train,B=1",
        "em:mode=infer,B=1", "em:mode=train,B=1,net=library", "emroute:mode=fwdbwd,B=1,I=18",
        "emroute:mode=fwd,B=1,I=18", "gp:net=mlp,wrt=x,B=4",
        "gp:net=mlp,wrt=theta,B=4,act=softplus", "gp:net=caps,wrt=x,B=1",
        "gp:net=caps,wrt=theta,B=1", "effcaps:mode=train,B=2", "effcaps:mode=infer,B=1",
        "text:model=B,L=12,B=2", "text:model=A,L=12,B=2,mode=infer", "startup"})
    all.push_back({spec, "small"});
  for (const Named& n : standard_workloads())
    if (n.spec.starts_with("prim:")) all.push_back({n.spec + ",scale=100", "small"});
  return all;
}

Batch make_batch(std::int64_t n, std::int64_t side) {
  Rng rng(1);
  Batch batch;
  batch.images = rand({n, 1, side, side}, rng);
  batch.labels = rng.integers({n}, 10);
  batch.targets = one_hot(batch.labels, 10);
  return batch;
}

double routing_flops(std::int64_t i, std::int64_t j, std::int64_t d, std::int64_t r) {
  return 2.0 * static_cast<double>(i * j * d * (2 * r - 1));
}

std::function<void()> training_step(const std::shared_ptr<Module>& net,
                                    const AdamOptions& adam,
                                    const std::function<Tensor()>& loss) {
  const auto optimizer = std::make_shared<Adam>(net->parameters(), adam);
  return [net, optimizer, loss] {
    optimizer->zero_grad();
    const Tensor value = loss();
    backward(value);
    static_cast<void>(value.item());
    optimizer->step();
  };
}

double adam_bytes(std::int64_t parameters) { return 4.0 * 9 * static_cast<double>(parameters); }

}  // namespace capsfw::bench
