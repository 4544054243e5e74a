#include "agent/daemon/operations.hpp"

#include <spdlog/spdlog.h>

#include "vmrepl/base/spawn_supervised.hpp"

namespace havm {

nlohmann::json Operation::to_json() const {
  nlohmann::json j;
  j["id"] = id;
  j["kind"] = kind;
  j["vm"] = vm;
  j["state"] = !ended ? "running" : error.empty() ? "done" : "failed";
  j["step"] = step;
  j["percent"] = nullptr;
  if (percent) j["percent"] = *percent;
  j["error"] = nullptr;
  if (!error.empty()) j["error"] = error;
  j["result"] = result;
  return j;
}

std::shared_ptr<Operation> Operations::running(const std::string& vm) const {
  for (const auto& [id, operation] : all_)
    if (operation->vm == vm && !operation->ended) return operation;
  return nullptr;
}

std::shared_ptr<Operation> Operations::find(const std::string& id) const {
  const auto it = all_.find(id);
  return it == all_.end() ? nullptr : it->second;
}

void Operations::forget_old() {
  const TimePoint now = BootClock::now();
  std::erase_if(all_, [&](const auto& entry) {
    const Operation& o = *entry.second;
    return o.ended && (now - o.ended_at > kept_after_end || all_.size() > kept_max);
  });
}

std::shared_ptr<Operation> Operations::start(std::string kind, std::string vm, Body body) {
  forget_old();
  auto operation = std::make_shared<Operation>();
  operation->id = std::to_string(++next_);
  operation->kind = std::move(kind);
  operation->vm = std::move(vm);
  operation->step = "starting";
  all_[operation->id] = operation;
  spawn_supervised(executor_, "operation " + operation->kind, run(operation, std::move(body)));
  return operation;
}

boost::asio::awaitable<void> Operations::run(std::shared_ptr<Operation> operation, Body body) {
  auto result = co_await body(operation);
  operation->ended = true;
  operation->ended_at = BootClock::now();
  if (result) {
    operation->result = std::move(result.value());
    operation->percent = 100;
    spdlog::info("vm={} {} done", operation->vm, operation->kind);
  } else {
    operation->error = result.error().message;
    spdlog::warn("vm={} {} failed: {}", operation->vm, operation->kind, operation->error);
  }
}

}  // namespace havm
