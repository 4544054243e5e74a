#include "agent/witness/witness_service.hpp"

#include <cerrno>

#include <spdlog/spdlog.h>

#include "agent/control/http_wire.hpp"

namespace havm {
namespace {

constexpr std::size_t lease_batch_max = 10'000;

HttpResponse bad_request(const Error& error) {
  return HttpResponse::error(400, error.message);
}

HttpResponse store_failed(const Error& error) {
  spdlog::error("{}", error.message);
  return HttpResponse::error(500, error.message);
}

HttpResponse not_found(const RegisterKey& key) {
  return HttpResponse::error(404, "cluster " + key.cluster + " has no register of VM " + key.vm);
}

std::string text(const Register& value) {
  return dump_http_body(to_json(value));
}

}  // namespace

WitnessService::WitnessService(WitnessStore& store, TimePoint started)
    : store_(store), started_(started) {}

WitnessView WitnessService::view(const RegisterKey& key, const Register& value,
                                 TimePoint now) const {
  WitnessView result;
  result.value = value;
  for (const std::string& node : value.in_sync)
    result.grant_ages[node] = std::nullopt;
  for (const auto& [node, age] : grants_.ages(key, now))
    result.grant_ages[node] = age;
  result.uptime = now - started_;
  return result;
}

HttpResponse WitnessService::info(TimePoint now) {
  const auto count = store_.count();
  if (!count) return store_failed(count.error());
  nlohmann::json body = nlohmann::json::object();
  body["version"] = HAVM_VERSION;
  body["uptime_ms"] = to_ms(now - started_);
  body["registers"] = count.value();
  body["store_id"] = store_.store_id();
  return HttpResponse(200, std::move(body));
}

HttpResponse WitnessService::list(const std::string& cluster, TimePoint now) {
  const auto registers = store_.list(cluster);
  if (!registers) return store_failed(registers.error());
  nlohmann::json body = nlohmann::json::object();
  body["registers"] = nlohmann::json::object();
  for (const auto& [vm, value] : registers.value())
    body["registers"][vm] = to_json(view(RegisterKey(cluster, vm), value, now));
  return HttpResponse(200, std::move(body));
}

HttpResponse WitnessService::create(const RegisterKey& key, const nlohmann::json& body,
                                    TimePoint now) {
  const auto wanted = register_from_json(body);
  if (!wanted) return bad_request(wanted.error());
  const auto present = store_.read(key);
  if (!present) return store_failed(present.error());
  const CreateDecision decision = decide_create(present.value(), wanted.value());
  if (decision == CreateDecision::Conflict) {
    nlohmann::json reply = to_json(view(key, *present.value(), now));
    reply["error"] =
        "VM " + key.vm + " of cluster " + key.cluster + " has another register already";
    return HttpResponse(409, std::move(reply));
  }
  if (decision == CreateDecision::Create) {
    const auto written = store_.write(key, wanted.value());
    if (!written) return store_failed(written.error());
    spdlog::info("cluster={} vm={} created {}", key.cluster, key.vm, text(wanted.value()));
  }
  return HttpResponse(200, to_json(view(key, wanted.value(), now)));
}

HttpResponse WitnessService::remove(const RegisterKey& key, const nlohmann::json& body,
                                    TimePoint now) {
  const auto keys = require_keys(body, {"expect"});
  if (!keys) return bad_request(keys.error());
  const auto expect = register_from_json(body["expect"]);
  if (!expect) return bad_request(expect.error());
  const auto present = store_.read(key);
  if (!present) return store_failed(present.error());
  if (!present.value()) return not_found(key);
  if (*present.value() != expect.value()) {
    nlohmann::json reply = to_json(view(key, *present.value(), now));
    reply["error"] = "the register of VM " + key.vm + " is not the expected one";
    return HttpResponse(409, std::move(reply));
  }
  const auto written = store_.write(key, std::nullopt);
  if (!written) return store_failed(written.error());
  spdlog::info("cluster={} vm={} removed {}", key.cluster, key.vm, text(expect.value()));
  return HttpResponse(200, nlohmann::json::object());
}

HttpResponse WitnessService::cas(const RegisterKey& key, const nlohmann::json& body,
                                 TimePoint now) {
  const auto keys = require_keys(body, {"expect", "to"});
  if (!keys) return bad_request(keys.error());
  const auto expect = register_from_json(body["expect"]);
  if (!expect) return bad_request(Error("expect: " + expect.error().message));
  const auto to = register_from_json(body["to"]);
  if (!to) return bad_request(Error("to: " + to.error().message));
  const auto present = store_.read(key);
  if (!present) return store_failed(present.error());
  if (!present.value()) return not_found(key);
  const bool applied = cas_applicable(*present.value(), expect.value(), to.value());
  if (applied) {
    const auto written = store_.write(key, to.value());
    if (!written) return store_failed(written.error());
    spdlog::info("cluster={} vm={} {} → {}", key.cluster, key.vm, text(expect.value()),
                 text(to.value()));
  }
  nlohmann::json reply = to_json(view(key, applied ? to.value() : *present.value(), now));
  reply["applied"] = applied;
  return HttpResponse(200, std::move(reply));
}

HttpResponse WitnessService::leases(const std::string& cluster, const nlohmann::json& body,
                                    TimePoint received) {
  const auto keys = require_keys(body, {"node", "vms"});
  if (!keys) return bad_request(keys.error());
  if (!body["node"].is_string() || !body["vms"].is_array())
    return HttpResponse::error(400, "node must be a string and vms a list");
  if (body["vms"].size() > lease_batch_max)
    return HttpResponse::error(400, "more than " + std::to_string(lease_batch_max) + " VMs");
  for (const nlohmann::json& one : body["vms"]) {
    const auto one_keys = require_keys(one, {"vm", "epoch"});
    if (!one_keys) return bad_request(one_keys.error());
    if (!one["vm"].is_string() || !one["epoch"].is_number_unsigned())
      return HttpResponse::error(400, "vm must be a string and epoch a whole number");
  }
  const auto node = body["node"].get<std::string>();
  nlohmann::json reply = nlohmann::json::object();
  reply["granted"] = nlohmann::json::array();
  reply["refused"] = nlohmann::json::object();
  for (const nlohmann::json& one : body["vms"]) {
    const RegisterKey key(cluster, one["vm"].get<std::string>());
    const auto present = store_.read(key);
    if (!present) return store_failed(present.error());
    const auto refusal =
        lease_refusal(present.value(), node, Epoch(one["epoch"].get<std::uint64_t>()));
    if (refusal) {
      reply["refused"][key.vm] = *refusal;
      continue;
    }
    grants_.record(key, node, received);
    reply["granted"].push_back(key.vm);
  }
  return HttpResponse(200, std::move(reply));
}

HttpResponse WitnessService::one_register(const HttpRequest& request, const RegisterKey& key,
                                          TimePoint now) {
  if (request.method == "PUT") return create(key, request.body, now);
  if (request.method == "DELETE") return remove(key, request.body, now);
  if (request.method != "GET") return HttpResponse::error(400, "use GET, PUT or DELETE");
  const auto present = store_.read(key);
  if (!present) return store_failed(present.error());
  if (!present.value()) return not_found(key);
  return HttpResponse(200, to_json(view(key, *present.value(), now)));
}

HttpResponse WitnessService::handle(const HttpRequest& request, TimePoint received) {
  const auto& path = request.path;
  const HttpResponse unknown = HttpResponse::error(404, "there is no such request");
  if (path.size() < 2 || path[0] != "v1") return unknown;
  if (path[1] == "info" && path.size() == 2 && request.method == "GET") return info(received);
  if (path[1] != "clusters" || path.size() < 4) return unknown;
  if (const auto problem = name_problem("cluster", path[2]))
    return HttpResponse::error(400, *problem);
  if (path[3] == "leases" && path.size() == 4 && request.method == "POST")
    return leases(path[2], request.body, received);
  if (path[3] != "registers") return unknown;
  if (path.size() == 4 && request.method == "GET") return list(path[2], received);
  if (path.size() < 5) return unknown;
  if (const auto problem = name_problem("VM", path[4])) return HttpResponse::error(400, *problem);
  const RegisterKey key(path[2], path[4]);
  if (path.size() == 5) return one_register(request, key, received);
  if (path.size() == 6 && path[5] == "cas" && request.method == "POST")
    return cas(key, request.body, received);
  return unknown;
}

namespace {

boost::asio::awaitable<HttpResponse> handle_now(WitnessService* service, HttpRequest request) {
  co_return service->handle(request, BootClock::now());
}

}  // namespace

HttpHandler WitnessService::handler() {
  return [this](HttpRequest request) { return handle_now(this, std::move(request)); };
}

}  // namespace havm
