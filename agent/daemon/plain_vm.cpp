#include "agent/daemon/plain_vm.hpp"

#include "agent/daemon/havmd.hpp"
#include "agent/daemon/wait_until.hpp"
#include "hypervisor/hypervisor.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr milliseconds call_deadline{30000};

asio::awaitable<Result<bool>> is_off(Havmd& daemon, std::string vm) {
  Hypervisor* const hv = daemon.node().hypervisor;
  std::function<Result<DomainInfo>()> look = [hv, vm] { return hv->domain_info(vm); };
  auto info = co_await daemon.worker().run<DomainInfo>("looking at VM '" + vm + "'",
                                                       std::move(look), call_deadline);
  if (!info) co_return info.error();
  co_return info.value().state == DomainState::shut_off;
}

asio::awaitable<Result<bool>> off_within(Havmd& daemon, std::string vm, milliseconds patience) {
  const TimePoint end = BootClock::now() + patience;
  while (true) {
    auto off = co_await is_off(daemon, vm);
    if (!off || off.value() || BootClock::now() >= end) co_return off;
    std::function<bool()> never = [] { return false; };
    co_await wait_until(daemon.node().executor, std::move(never), milliseconds(200));
  }
}

}  // namespace

asio::awaitable<Result<void>> stop_plain_vm(Havmd& daemon, std::string vm,
                                            std::shared_ptr<Operation> operation) {
  Hypervisor* const hv = daemon.node().hypervisor;
  operation->step = "asking the guest to shut down";
  std::function<Result<void>()> shutdown = [hv, vm] { return hv->shutdown(vm); };
  auto asked = co_await daemon.worker().run<void>("shutting down VM '" + vm + "'",
                                                  std::move(shutdown), call_deadline);
  auto off = co_await off_within(daemon, vm, asked ? shutdown_patience : milliseconds(0));
  if (off && off.value()) co_return success();
  operation->step = "the guest did not react to its power button: pulling its plug";
  std::function<Result<void>()> destroy = [hv, vm] { return hv->destroy(vm); };
  auto destroyed = co_await daemon.worker().run<void>("stopping VM '" + vm + "'",
                                                      std::move(destroy), call_deadline);
  if (!destroyed) co_return destroyed.error();
  auto gone = co_await off_within(daemon, vm, call_deadline);
  if (gone && gone.value()) co_return success();
  co_return Error("VM '" + vm + "' could not be stopped");
}

asio::awaitable<Result<void>> start_plain_vm(Havmd& daemon, std::string vm) {
  Hypervisor* const hv = daemon.node().hypervisor;
  std::function<Result<void>()> start = [hv, vm] { return hv->start(vm, false); };
  co_return co_await daemon.worker().run<void>("starting VM '" + vm + "'", std::move(start),
                                               call_deadline);
}

}  // namespace havm
