#include "agent/witness/witness_client.hpp"

#include <cerrno>

namespace havm {
namespace {

namespace asio = boost::asio;
using Milliseconds = std::chrono::milliseconds;

Error refused(const HttpResponse& response) {
  const bool told = response.body.is_object() && response.body.contains("error") &&
                    response.body["error"].is_string();
  const std::string why = told ? response.body["error"].get<std::string>()
                               : "HTTP status " + std::to_string(response.status);
  return Error("the witness refused: " + why, response.status == 400 ? EINVAL : EIO);
}

Result<WitnessChange> change_of(const HttpResponse& response, bool applied) {
  WitnessChange change;
  change.applied = applied;
  BOOST_OUTCOME_TRY(auto view, view_from_json(response.body));
  change.present = std::move(view);
  return change;
}

// Anything that speaks our JSON: a 404 of some other web server is no answer about a register.
bool no_register(const HttpResponse& response) {
  return response.status == 404 && response.body.is_object() && response.body.contains("error");
}

asio::awaitable<Result<std::optional<WitnessView>>> read_register(std::shared_ptr<HttpClient> http,
                                                                  std::string target,
                                                                  Milliseconds deadline) {
  nlohmann::json none;
  const auto answer = co_await http->request("GET", std::move(target), std::move(none), deadline);
  if (!answer) co_return answer.error();
  if (no_register(answer.value())) co_return std::optional<WitnessView>();
  if (answer.value().status != 200) co_return refused(answer.value());
  auto view = view_from_json(answer.value().body);
  if (!view) co_return view.error();
  co_return std::optional<WitnessView>(std::move(view.value()));
}

asio::awaitable<Result<std::map<std::string, WitnessView>>> list_registers(
    std::shared_ptr<HttpClient> http, std::string target, Milliseconds deadline) {
  nlohmann::json none;
  const auto answer = co_await http->request("GET", std::move(target), std::move(none), deadline);
  if (!answer) co_return answer.error();
  const nlohmann::json& body = answer.value().body;
  if (answer.value().status != 200) co_return refused(answer.value());
  if (!body.is_object() || !body.contains("registers") || !body["registers"].is_object())
    co_return Error("the answer of the witness is not a list of registers", EBADMSG);
  std::map<std::string, WitnessView> result;
  for (const auto& [vm, json] : body["registers"].items()) {
    auto view = view_from_json(json);
    if (!view) co_return view.error();
    result.emplace(vm, std::move(view.value()));
  }
  co_return result;
}

asio::awaitable<Result<WitnessChange>> swap(std::shared_ptr<HttpClient> http, std::string target,
                                            nlohmann::json body, Milliseconds deadline) {
  const auto answer = co_await http->request("POST", std::move(target), std::move(body), deadline);
  if (!answer) co_return answer.error();
  const HttpResponse& response = answer.value();
  if (no_register(response)) co_return WitnessChange();
  if (response.status != 200) co_return refused(response);
  if (!response.body.is_object() || !response.body.contains("applied") ||
      !response.body["applied"].is_boolean())
    co_return Error("the answer of the witness does not say whether it applied the swap", EBADMSG);
  co_return change_of(response, response.body["applied"].get<bool>());
}

asio::awaitable<Result<WitnessChange>> create_register(std::shared_ptr<HttpClient> http,
                                                       std::string target, nlohmann::json body,
                                                       Milliseconds deadline) {
  const auto answer = co_await http->request("PUT", std::move(target), std::move(body), deadline);
  if (!answer) co_return answer.error();
  const int status = answer.value().status;
  if (status != 200 && status != 409) co_return refused(answer.value());
  co_return change_of(answer.value(), status == 200);
}

asio::awaitable<Result<WitnessChange>> remove_register(std::shared_ptr<HttpClient> http,
                                                       std::string target, nlohmann::json body,
                                                       Milliseconds deadline) {
  const auto answer =
      co_await http->request("DELETE", std::move(target), std::move(body), deadline);
  if (!answer) co_return answer.error();
  if (answer.value().status == 409) co_return change_of(answer.value(), false);
  if (answer.value().status != 200 && !no_register(answer.value()))
    co_return refused(answer.value());
  WitnessChange change;
  change.applied = answer.value().status == 200;
  co_return change;
}

Result<WitnessGrants> grants_from_json(const nlohmann::json& body, TimePoint sent) {
  const bool complete = body.is_object() && body.contains("granted") &&
                        body["granted"].is_array() && body.contains("refused") &&
                        body["refused"].is_object();
  if (!complete) return Error("the answer of the witness does not say what it granted", EBADMSG);
  WitnessGrants grants;
  grants.sent = sent;
  for (const auto& vm : body["granted"])
    if (vm.is_string()) grants.granted.insert(vm.get<std::string>());
  for (const auto& [vm, reason] : body["refused"].items())
    grants.refused[vm] = reason.is_string() ? reason.get<std::string>() : "no reason given";
  return grants;
}

asio::awaitable<Result<WitnessGrants>> request_leases(std::shared_ptr<HttpClient> http,
                                                      std::string target, nlohmann::json body,
                                                      Milliseconds deadline) {
  // Before it is queued or sent: the earlier this is, the earlier the grant ends, never too late.
  const TimePoint sent = BootClock::now();
  const auto answer = co_await http->request("POST", std::move(target), std::move(body), deadline);
  if (!answer) co_return answer.error();
  if (answer.value().status != 200) co_return refused(answer.value());
  co_return grants_from_json(answer.value().body, sent);
}

}  // namespace

WitnessClient::WitnessClient(asio::any_io_executor executor, std::string cluster,
                             const HttpEndpoint& endpoint)
    : cluster_(std::move(cluster)),
      registers_(HttpClient::create(executor, endpoint)),
      leases_(HttpClient::create(executor, endpoint)) {}

std::string WitnessClient::target(const std::string& vm) const {
  return http_target({"v1", "clusters", cluster_, "registers", vm});
}

WitnessClient::Answer<std::optional<WitnessView>> WitnessClient::read(std::string vm,
                                                                      Milliseconds deadline) {
  return read_register(registers_, target(vm), deadline);
}

WitnessClient::Answer<std::map<std::string, WitnessView>> WitnessClient::list(
    Milliseconds deadline) {
  return list_registers(registers_, http_target({"v1", "clusters", cluster_, "registers"}),
                        deadline);
}

WitnessClient::Answer<WitnessChange> WitnessClient::cas(std::string vm, Register expect,
                                                        Register to, Milliseconds deadline) {
  nlohmann::json body = nlohmann::json::object();
  body["expect"] = to_json(expect);
  body["to"] = to_json(to);
  return swap(registers_, target(vm) + "/cas", std::move(body), deadline);
}

WitnessClient::Answer<WitnessChange> WitnessClient::create(std::string vm, Register value,
                                                           Milliseconds deadline) {
  return create_register(registers_, target(vm), to_json(value), deadline);
}

WitnessClient::Answer<WitnessChange> WitnessClient::remove(std::string vm, Register expect,
                                                           Milliseconds deadline) {
  nlohmann::json body = nlohmann::json::object();
  body["expect"] = to_json(expect);
  return remove_register(registers_, target(vm), std::move(body), deadline);
}

WitnessClient::Answer<WitnessGrants> WitnessClient::lease(std::string node,
                                                          std::vector<WitnessLease> vms,
                                                          Milliseconds deadline) {
  nlohmann::json body = nlohmann::json::object();
  body["node"] = node;
  body["vms"] = nlohmann::json::array();
  for (const WitnessLease& one : vms) {
    nlohmann::json entry = nlohmann::json::object();
    entry["vm"] = one.vm;
    entry["epoch"] = one.epoch.value;
    body["vms"].push_back(std::move(entry));
  }
  return request_leases(leases_, http_target({"v1", "clusters", cluster_, "leases"}),
                        std::move(body), deadline);
}

}  // namespace havm
