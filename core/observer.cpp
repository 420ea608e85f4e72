#include <capsfw/core/observer.hpp>

#include <utility>

namespace capsfw {
namespace {

thread_local OpObserver* t_observer = nullptr;

}  // namespace

ObserverGuard::ObserverGuard(OpObserver* observer)
    : previous_(std::exchange(t_observer, observer)) {}
ObserverGuard::~ObserverGuard() { t_observer = previous_; }

namespace detail {

OpObserver* op_observer() { return t_observer; }

}  // namespace detail
}  // namespace capsfw
