#include "agent/witness/witness_arbiter.hpp"

#include "agent/witness/witness_client.hpp"

namespace havm {
namespace {

namespace asio = boost::asio;

class WitnessArbiter : public Arbiter {
 public:
  WitnessArbiter(asio::any_io_executor executor, std::string cluster,
                 const WitnessEndpoint& endpoint, std::vector<std::string> nodes)
      : client_(std::move(executor), std::move(cluster),
                HttpEndpoint::tcp(endpoint.address, endpoint.port)),
        nodes_(std::move(nodes)) {}

  asio::awaitable<Result<ArbiterAnswer>> read(std::string vm, Deadline deadline) override {
    auto view = co_await client_.read(std::move(vm), deadline);
    if (!view) co_return view.error();
    co_return answer(view.value(), false);
  }

  asio::awaitable<Result<ArbiterAnswer>> compare_and_swap(std::string vm, Register expect,
                                                          Register to, Deadline deadline) override {
    auto change = co_await client_.cas(std::move(vm), std::move(expect), std::move(to), deadline);
    if (!change) co_return change.error();
    co_return answer(change.value().present, change.value().applied);
  }

  asio::awaitable<Result<ArbiterAnswer>> create(std::string vm, Register value,
                                                Deadline deadline) override {
    auto change = co_await client_.create(std::move(vm), std::move(value), deadline);
    if (!change) co_return change.error();
    co_return answer(change.value().present, change.value().applied);
  }

  asio::awaitable<Result<ArbiterAnswer>> remove(std::string vm, Register expect,
                                                Deadline deadline) override {
    auto change = co_await client_.remove(std::move(vm), std::move(expect), deadline);
    if (!change) co_return change.error();
    co_return answer(change.value().present, change.value().applied);
  }

  asio::awaitable<Result<std::vector<std::string>>> lease(std::string node,
                                                          std::vector<LeaseRequest> vms,
                                                          Deadline deadline) override {
    std::vector<WitnessLease> wanted;
    wanted.reserve(vms.size());
    for (const LeaseRequest& request : vms)
      wanted.emplace_back(request.vm, request.epoch);
    auto grants = co_await client_.lease(std::move(node), std::move(wanted), deadline);
    if (!grants) co_return grants.error();
    const auto& granted = grants.value().granted;
    co_return std::vector<std::string>(granted.begin(), granted.end());
  }

 private:
  [[nodiscard]] ArbiterAnswer answer(const std::optional<WitnessView>& view, bool applied) const {
    ArbiterAnswer a;
    a.applied = applied;
    if (!view) return a;
    a.value = view->value;
    for (const std::string& node : nodes_)
      a.grant_ages[node] = view->grant_age(node);
    return a;
  }

  WitnessClient client_;
  std::vector<std::string> nodes_;
};

}  // namespace

std::unique_ptr<Arbiter> make_witness_arbiter(asio::any_io_executor executor, std::string cluster,
                                              const WitnessEndpoint& endpoint,
                                              std::vector<std::string> nodes) {
  return std::make_unique<WitnessArbiter>(std::move(executor), std::move(cluster), endpoint,
                                          std::move(nodes));
}

}  // namespace havm
