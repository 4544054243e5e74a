// havm-witness: compare-and-swap registers with leases for many clusters
// (docs/protocol/witness.md).
#include <cstdio>

#include <CLI/CLI.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "agent/witness/witness_service.hpp"

namespace havm {
namespace {

// "ADDR:PORT" or "[ADDR]:PORT".
Result<HttpEndpoint> parse_endpoint(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::string address = text.substr(0, colon);
  if (address.size() > 2 && address.front() == '[' && address.back() == ']')
    address = address.substr(1, address.size() - 2);
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || address.empty() || std::stoul(port) > 65535)
    return Error("'" + text + "' is not ADDR:PORT, for instance 0.0.0.0:7600", EINVAL);
  return HttpEndpoint::tcp(address, static_cast<std::uint16_t>(std::stoul(port)));
}

Result<void> run_witness(const std::string& listen, const std::string& db) {
  const TimePoint started = BootClock::now();
  BOOST_OUTCOME_TRY(const HttpEndpoint endpoint, parse_endpoint(listen));
  BOOST_OUTCOME_TRY(const auto store, WitnessStore::open(db));
  boost::asio::io_context io(1);
  WitnessService service(*store, started);
  BOOST_OUTCOME_TRY(auto server,
                    HttpServer::listen(io.get_executor(), endpoint, service.handler()));
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&server, &io](const boost::system::error_code&, int) {
    spdlog::info("ends: it was asked to");
    server.reset();
    io.stop();
  });
  spdlog::info("havm-witness {} listens on {}, store {} ({})", HAVM_VERSION,
               server->endpoint().text(), store->store_id(), db);
  io.run();
  return success();
}

}  // namespace
}  // namespace havm

int main(int argc, char** argv) {
  CLI::App app("Decides between two nodes that cannot hear each other", "havm-witness");
  std::string listen = "0.0.0.0:7600";
  std::string db = "/var/lib/havm/witness.db";
  app.add_option("--listen", listen, "Numeric address and TCP port to listen on")
      ->capture_default_str();
  app.add_option("--db", db, "SQLite file of the registers, created when absent")
      ->capture_default_str();
  app.set_version_flag("--version", "havm-witness " HAVM_VERSION);
  CLI11_PARSE(app, argc, argv);
  spdlog::set_default_logger(spdlog::stderr_logger_st("havm-witness"));
  const auto end = havm::run_witness(listen, db);
  if (end) return 0;
  std::fprintf(stderr, "havm-witness: %s\n", end.error().message.c_str());
  return 1;
}
