# cmake --install: headers, library, CMake package, pkg-config file. The real headers are installed, not
# the forwarders of the build tree. Nothing installed names a path of this machine, so that a prefix can
# be moved. See docs/design/0060-packaging.md.
include(CMakePackageConfigHelpers)

foreach(header IN LISTS CAPSFW_PUBLIC_HEADERS)
  cmake_path(GET header PARENT_PATH folder)
  install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/capsfw/${folder})
endforeach()
install(FILES ${CAPSFW_INCLUDE_DIR}/capsfw/capsfw.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/capsfw)
install(FILES ${CAPSFW_INCLUDE_DIR}/capsfw/core/version.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/capsfw/core)

# CMake package: capsfw::capsfw, capsfw::mpi (component mpi), and capsfw::apps (component apps, needs mpi) if
# the programs are built.
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/capsfw)
install(TARGETS capsfw EXPORT capsfw-targets)
install(EXPORT capsfw-targets NAMESPACE capsfw:: DESTINATION ${package})
install(TARGETS capsfw_mpi EXPORT capsfw-mpi-targets)
install(EXPORT capsfw-mpi-targets NAMESPACE capsfw:: DESTINATION ${package})
if(TARGET capsfw_apps_common)
  install(TARGETS capsfw_apps_common EXPORT capsfw-apps-targets)
  install(EXPORT capsfw-apps-targets NAMESPACE capsfw:: DESTINATION ${package})
  install(DIRECTORY apps/common DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/capsfw/apps FILES_MATCHING PATTERN *.hpp)
endif()
get_target_property(type capsfw TYPE)
string(COMPARE EQUAL ${type} STATIC_LIBRARY CAPSFW_STATIC)
configure_package_config_file(cmake/capsfw-config.cmake.in ${PROJECT_BINARY_DIR}/capsfw-config.cmake
                              INSTALL_DESTINATION ${package} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/capsfw-config-version.cmake
                                 COMPATIBILITY SameMinorVersion) # until 1.0, a minor version may break
install(FILES ${PROJECT_BINARY_DIR}/capsfw-config.cmake ${PROJECT_BINARY_DIR}/capsfw-config-version.cmake
              cmake/openblas.cmake DESTINATION ${package})

# pkg-config file. Of a static library every user needs what it links; of a shared one, nobody.
set(CAPSFW_PC_REQUIRES Requires)
if(NOT CAPSFW_STATIC)
  set(CAPSFW_PC_REQUIRES Requires.private)
endif()
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
           OUTPUT_VARIABLE CAPSFW_PC_PREFIX)
configure_file(cmake/capsfw.pc.in capsfw.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/capsfw.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES LICENSE README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES tests/consumer/find_package/CMakeLists.txt tests/consumer/program.cpp
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/example)
if(CAPSFW_BUILD_APPS)
  install(DIRECTORY apps/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/capsfw/models)
endif()
