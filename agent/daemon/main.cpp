// havmd: the agent of one node.
#include <csignal>
#include <filesystem>

#include <CLI/CLI.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "agent/daemon/havmd.hpp"

int main(int argc, char** argv) {
  havm::Havmd::Options options;
  options.cluster_file = "/etc/havm/cluster.json";
  options.libvirt_uri = "qemu:///system";
  options.paths.programs = std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
  bool show_version = false;

  CLI::App app{"havmd: keeps virtual machines available on two hosts"};
  app.add_option("--config", options.cluster_file, "cluster file")->capture_default_str();
  app.add_option("--node", options.node,
                 "name of this node in the cluster file (default: the host name)");
  app.add_option("--state-dir", options.paths.state, "files that survive a reboot")
      ->capture_default_str();
  app.add_option("--run-dir", options.paths.run, "sockets")->capture_default_str();
  app.add_option("--tls-dir", options.paths.tls, "certificates of this node")
      ->capture_default_str();
  app.add_option("--libvirt", options.libvirt_uri, "libvirt connection URI")->capture_default_str();
  app.add_flag("--version", show_version, "print the version");
  CLI11_PARSE(app, argc, argv);
  if (show_version) {
    std::printf("havmd %s\n", HAVM_VERSION);
    return 0;
  }
  spdlog::set_default_logger(spdlog::stderr_logger_mt("havmd"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  spdlog::flush_on(spdlog::level::info);
  std::signal(SIGPIPE, SIG_IGN);

  boost::asio::io_context io(1);
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&io](const boost::system::error_code& error, int) {
    if (!error) io.stop();
  });
  auto daemon = havm::Havmd::start(io, options);
  if (!daemon) {
    spdlog::error("havmd cannot start: {}", daemon.error().message);
    return 1;
  }
  spdlog::info("havmd {} runs on node {} of cluster {}", HAVM_VERSION, daemon.value()->node().self,
               daemon.value()->node().cluster.name);
  io.run();
  spdlog::info("havmd ends; the VMs, their engines and the guard go on");
  // The units' tasks refer to the daemon: they end with the process, not one by one.
  std::_Exit(0);
}
