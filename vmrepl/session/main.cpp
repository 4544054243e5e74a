// havm-repl: the replication engine of one VM. This file only reads the command line and puts the
// engine on its thread.
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include "vmrepl/disk/dump_metadata.hpp"
#include "vmrepl/session/engine.hpp"
#include "vmrepl/session/replica_files.hpp"

namespace {

int fail(const havm::Error& error) {
  std::fprintf(stderr, "havm-repl: %s\n", error.message.c_str());
  return EXIT_FAILURE;
}

void log_to_stderr(const std::string& level) {
  auto logger = spdlog::stderr_logger_st("havm-repl");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

int dump(const std::string& path) {
  const auto text = havm::dump_metadata(path);
  if (!text) return fail(text.error());
  std::fputs(text.value().c_str(), stdout);
  return EXIT_SUCCESS;
}

int run(havm::EngineConfig config) {
  boost::asio::io_context io(1);
  auto engine = havm::Engine::start(io, std::move(config), [&io] { io.stop(); });
  if (!engine) return fail(engine.error());
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](const boost::system::error_code& e, int) {
    if (!e) engine.value()->quit();
  });
  io.run();
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The replication engine of one VM, started and commanded by havmd.", "havm-repl");
  std::string config_path;
  std::string create;
  std::string adopt;
  std::string level = "info";
  std::string dumped;
  auto* config_option =
      app.add_option("--config", config_path, "Configuration (JSON) of this VM's engine");
  app.add_option("--create", create, "Write the first record of a replica in this state, and end")
      ->check(CLI::IsMember({"uptodate", "inconsistent"}));
  app.add_option("--adopt-images", adopt,
                 "Take files that are not the ones this replica was made on for its images, and "
                 "end: same (bit by bit what it held) or other (it is copied anew)")
      ->check(CLI::IsMember({"same", "other"}));
  app.add_option("--dump-metadata", dumped,
                 "Print this record, activity log or dirty bitmap file, and end")
      ->excludes(config_option);
  app.add_option("--log-level", level, "trace, debug, info, warning, error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error"}));
  app.set_version_flag("--version", std::string("havm-repl ") + HAVM_VERSION);
  CLI11_PARSE(app, argc, argv);
  if (!dumped.empty()) return dump(dumped);
  if (config_path.empty()) return app.exit(CLI::RequiredError("--config"));
  std::signal(SIGPIPE, SIG_IGN);
  log_to_stderr(level);

  auto config = havm::load_engine_config(config_path);
  if (!config) return fail(config.error());
  if (!adopt.empty()) {
    const auto adopted = havm::adopt_images(
        config.value(), adopt == "same" ? havm::AdoptedImages::same : havm::AdoptedImages::other);
    return adopted ? EXIT_SUCCESS : fail(adopted.error());
  }
  if (create.empty()) return run(std::move(config).value());
  const auto state = havm::parse_replica_state(create);
  const auto created = havm::create_record(config.value(), *state);
  return created ? EXIT_SUCCESS : fail(created.error());
}
