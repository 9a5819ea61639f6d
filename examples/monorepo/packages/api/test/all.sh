a test of api
