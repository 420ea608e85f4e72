# The targets: readers of the library, and those of the programs with the sources that they test.
set(CAPSFW_FUZZ_data_SOURCES)
foreach(source arrays images sets texts with_file)
  list(APPEND CAPSFW_FUZZ_data_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${source}.cpp)
endforeach()
set(CAPSFW_FUZZ_model_SOURCES ${CMAKE_CURRENT_LIST_DIR}/models.cpp)
foreach(source classifier_io description text_model)
  list(APPEND CAPSFW_FUZZ_model_SOURCES ${PROJECT_SOURCE_DIR}/apps/common/${source}.cpp)
endforeach()
