// The job of WitnessService: the requests of docs/protocol/witness.md onto core and store. Each
// request is handled whole before the next one, so that reading, deciding and writing cannot be
// torn apart. Time arrives as an argument. Blocking (the store); one thread.
#pragma once

#include <string>

#include "agent/control/http.hpp"
#include "agent/witness/witness_codec.hpp"
#include "agent/witness/witness_core.hpp"
#include "agent/witness/witness_store.hpp"

namespace havm {

class WitnessService {
 public:
  // The store must live as long as the service.
  WitnessService(WitnessStore& store, TimePoint started);

  HttpResponse handle(const HttpRequest& request, TimePoint received);

  // For HttpServer: handle() at the time of the call. The service must live as long as the executor
  // runs.
  HttpHandler handler();

 private:
  HttpResponse info(TimePoint now);
  HttpResponse list(const std::string& cluster, TimePoint now);
  HttpResponse one_register(const HttpRequest& request, const RegisterKey& key, TimePoint now);
  HttpResponse create(const RegisterKey& key, const nlohmann::json& body, TimePoint now);
  HttpResponse remove(const RegisterKey& key, const nlohmann::json& body, TimePoint now);
  HttpResponse cas(const RegisterKey& key, const nlohmann::json& body, TimePoint now);
  HttpResponse leases(const std::string& cluster, const nlohmann::json& body, TimePoint received);
  [[nodiscard]] WitnessView view(const RegisterKey& key, const Register& value,
                                 TimePoint now) const;

  WitnessStore& store_;
  GrantLedger grants_;
  TimePoint started_;
};

}  // namespace havm
